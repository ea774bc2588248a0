"""Draws a pull on standard error: what there is to choose from, and a bar on a terminal or a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from localllm.cli.output import clock, human_size, say
from localllm.sanitize import sanitize_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from localllm.hub.events import Progress, Retrying, Waiting
    from localllm.tasks.remote import Choice, Offer

_LINE_SECONDS = 5.0
_NAME = 36
"""Characters of a file's name beside the bar: the last ones, in which files of a repository differ."""


def table(offer: Offer) -> list[str]:
    """The quantizations with their sizes and whether they fit; the one that is taken has a mark."""
    context = f" with {offer.n_ctx} tokens of context" if offer.n_ctx else ""
    memory = f"; {human_size(offer.memory)} of memory are available" if offer.memory is not None else ""
    lines = [sanitize_line(f"{offer.repository.repo} at {offer.repository.commit[:12]}{memory}")]
    lines.append(f"  {'QUANTIZATION':20} {'SIZE':>9} {'NEEDS':>9}  FITS{context}")
    return lines + [_row(choice, choice == offer.taken) for choice in offer.choices]


def _row(choice: Choice, taken: bool) -> str:
    name = sanitize_line(choice.variant.quantization)
    parts = len(choice.variant.files)
    several = f"  ({parts} parts)" if parts > 1 and name != "folder" else f"  ({parts} files)" if parts > 1 else ""
    needs = "?" if choice.needs is None else human_size(choice.needs)
    fits = "?" if choice.fits is None else "yes" if choice.fits else "no"
    return f"{'*' if taken else ' '} {name:20} {human_size(choice.variant.size):>9} {needs:>9}  {fits}{several}"


class PullView:
    """Takes the events of `tasks.pull` and `tasks.datasets`; a context manager: the bar goes whatever happens."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Bar | None = None
        self._task: Any = None
        self._last_line = time.monotonic()
        self._waited_for = ""

    def __enter__(self) -> PullView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def draw(self, event: Any) -> None:
        if not self._quiet and (draw := getattr(self, f"_{type(event).__name__.lower()}", None)):
            draw(event)

    def _offered(self, event: Any) -> None:
        for line in table(event.offer):
            print(line, file=sys.stderr, flush=True)
        total = event.offer.taken.variant.size
        here = f", {human_size(total - event.to_fetch)} of it are here" if event.to_fetch < total else ""
        self._say(f"{human_size(total)}{here}; the disk has {human_size(event.free)} left.")

    def _datasetlisted(self, event: Any) -> None:
        here = f", {human_size(event.bytes - event.to_fetch)} of it are here" if event.to_fetch < event.bytes else ""
        several = "s" if event.files > 1 else ""
        size = human_size(event.bytes)
        self._say(f"{event.name} at {event.commit[:12]}: {event.files} file{several}, {size}{here}.")

    def _noted(self, event: Any) -> None:
        self._say(f"localllm: warning: {event.message}")

    def _waiting(self, event: Waiting) -> None:
        if self._waited_for != event.path:
            self._waited_for = event.path
            self._say(f"{event.path}: another program is fetching it; waiting.")

    def _retrying(self, event: Retrying) -> None:
        self._say(f"{event.path}: {event.reason}; again in {event.seconds:.0f} s.")

    def _damaged(self, event: Any) -> None:
        self._say(f"{event.path}: what is in the cache is damaged, so it is fetched again.")

    def _progress(self, event: Progress) -> None:
        left = "?" if event.seconds_left is None else clock(event.seconds_left)
        speed = f"{human_size(event.bytes_per_second)}/s"
        if sys.stderr.isatty():
            bar = self._shown(event.all_total)
            name = sanitize_line(event.path.rpartition("/")[2])[-_NAME:]
            file = f"{name} {event.done * 100 // max(1, event.total)}%"
            bar.update(self._task, completed=event.all_done, file=file, speed=speed, left=left)
        elif time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            done, total = human_size(event.all_done), human_size(event.all_total)
            say(f"{event.path}  {event.done * 100 // max(1, event.total)}%  {done} of {total}  {speed}  {left} left")

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(sanitize_line(text), highlight=False, markup=False)
        else:
            say(text)

    def _shown(self, total: int) -> Bar:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

            fields = ("{task.fields[speed]}", "{task.fields[left]} left")
            self._bar = Progress(
                TextColumn("{task.fields[file]}", markup=False), BarColumn(), DownloadColumn(),
                *(TextColumn(field) for field in fields), console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total, file="", speed="", left="?")
            self._bar.start()
        return self._bar
