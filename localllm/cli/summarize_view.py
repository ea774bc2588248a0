"""Draws a run of summaries: summaries or JSON lines on standard output, how far it is on standard error."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

from localllm.cli.output import Events, clock, peak_rss_mb, say
from localllm.sanitize import sanitize, sanitize_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from localllm.tasks.summary_rows import Format

LINE_SECONDS = 5.0
"""Between two lines of progress where there is no terminal to draw a bar on."""


class SummarizeView:
    """Takes the events of `tasks.summarize`; a context manager, so that the bar is taken down whatever happens.

    `printing`: the format of rows on standard output, "text" for the bare summaries, None where they go into a file.
    """

    def __init__(self, *, json: bool, quiet: bool, printing: Format | str | None) -> None:
        self._events, self._quiet = Events(json), quiet or json
        self._printing = None if json else printing
        self._progress: Progress | None = None
        self._task: Any = None
        self._drawn = time.monotonic()
        self._rows = 0
        self.failed = 0

    def __enter__(self) -> SummarizeView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._take_down()

    def draw(self, event: Any) -> None:
        getattr(self, f"_{type(event).__name__.lower()}")(event)

    def _started(self, event: Any) -> None:
        self._events("started", **asdict(event))
        kept = f", {event.kept} rows in the output already" if event.kept else ""
        self._say(f"{event.documents} file{'s' * (event.documents != 1)} to summarize{kept}.")

    def _partdone(self, event: Any) -> None:
        self._events("progress", **asdict(event))

    def _progressed(self, event: Any) -> None:
        self._events("progress", **asdict(event))
        if self._quiet:
            return
        left = f", about {clock(event.left)} left" if event.left is not None else ""
        failed = f", {event.failed} failed" if event.failed else ""
        text = f"{event.parts} parts, {event.tokens_per_second:.0f} tokens/s{failed}{left}"
        if sys.stderr.isatty():
            self._bar().update(self._task, completed=event.documents, total=event.of, text=text)
        elif time.monotonic() - self._drawn >= LINE_SECONDS:
            self._drawn = time.monotonic()
            say(f"{event.documents} of {event.of} documents, {text}")

    def _documentdone(self, event: Any) -> None:
        row = event.row
        self._events("item", **row)
        for warning in row["warnings"]:
            self._narrate(f"localllm: {row['source']}: {warning}.")
        if row["error"]:
            self._narrate(f"localllm: {row['error']}")
        elif self._printing == "text":
            summary = row["summary"]
            self._take_down()
            print(sanitize(summary if isinstance(summary, str) else _dump(summary)), flush=True)
        if self._printing not in (None, "text"):
            self._print_row(row)

    def _print_row(self, row: dict[str, Any]) -> None:
        from localllm.tasks.summary_rows import in_format

        assert self._printing is not None
        text = in_format(row, self._printing, first=self._rows == 0)  # type: ignore[arg-type]
        sys.stdout.write(text if self._printing == "jsonl" else sanitize(text))
        sys.stdout.flush()
        self._rows += 1

    def _done(self, event: Any) -> None:
        self._take_down()
        self.failed = event.failed
        tokens = event.prompt_tokens + event.output_tokens
        rate = tokens / event.seconds if event.seconds else 0.0
        self._events(
            "done", **asdict(event) | {"seconds": round(event.seconds, 3)}, tokens=tokens,
            tokens_per_second=round(rate, 1), peak_rss_mb=peak_rss_mb(),
        )  # fmt: skip
        before = f", {event.skipped} already done" if event.skipped else ""
        written = event.documents - event.skipped
        self._say(
            f"{written} document{'s' * (written != 1)} in {event.seconds:.1f} s{before}; {event.parts} parts, "
            f"{tokens} tokens ({rate:.0f}/s), {event.failed} failed."
        )
        if event.failed_before:
            self._say("Documents that failed in an earlier run are tried again with --retry-failed.")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._narrate(text)

    def _narrate(self, text: str) -> None:
        """A line above the bar."""
        if self._progress is not None:
            self._progress.console.print(sanitize_line(text), highlight=False, markup=False)
        else:
            say(text)

    def _bar(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = ("{task.completed}/{task.total} documents", "{task.fields[text]}")
            self._progress = Progress(
                BarColumn(), *(TextColumn(c) for c in columns), console=Console(stderr=True), transient=True
            )
            self._task = self._progress.add_task("", total=None, text="")
            self._progress.start()
        return self._progress

    def _take_down(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _dump(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
