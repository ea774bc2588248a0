"""`localllm summarize`: whole documents, in batch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from localllm.cli import options
from localllm.cli.output import Events, cancellable, peak_rss_mb, say
from localllm.errors import UsageError

SOME_FAILED = 3


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help=".txt and .md files, or folders of them")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="JSON Lines file, one row appended per document")
    options.add_model(parser)
    parser.add_argument("--template", metavar="NAME", help="chat template for a file without one")
    parser.add_argument("--part-tokens", type=int, metavar="N", help="tokens of text in a part (default: what fits)")
    parser.add_argument("--retry-failed", action="store_true", help="try documents again that failed in an earlier run")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options.add_json(parser, "print events, one JSON object a line")
    options.add_sampling(parser)


def run(args: argparse.Namespace) -> int:
    if args.out is not None and args.out.is_dir():
        raise UsageError(f"--out {args.out} is a folder.", "Name a file in it.")
    sampling = options.sampling(args, max_tokens=192)
    setup = options.setup(args)
    from localllm.tasks.opening import open_model
    from localllm.tasks.summarize import SummarizeRequest, summarize

    opened = open_model(
        setup.registry, setup.model, setup.adapter, n_ctx=setup.n_ctx, n_threads=setup.n_threads, template=args.template
    )
    adapter = opened.adapter
    request = SummarizeRequest(
        paths=tuple(args.paths),
        out=args.out,
        model=opened.model.name,
        model_sha256=setup.registry.sha256(opened.model.path),
        adapter=adapter.name if adapter else None,
        adapter_sha256=setup.registry.sha256(adapter.path) if adapter else None,
        sampling=sampling,
        part_tokens=args.part_tokens or opened.model.chunk_tokens,
        retry_failed=args.retry_failed,
    )
    view = _View(Events(args.json), quiet=args.quiet or args.json, printing=args.out is None and not args.json)
    with cancellable() as cancel:
        try:
            for event in summarize(request, opened.engine, cancel):
                view.draw(event)
        finally:
            view.close()
            opened.engine.close()
    return SOME_FAILED if view.failed else 0


class _View:
    """Draws the task's events: progress on standard error, summaries or JSON lines on standard output."""

    def __init__(self, events: Events, *, quiet: bool, printing: bool) -> None:
        self._events, self._quiet, self._printing = events, quiet, printing
        self._live = not quiet and sys.stderr.isatty()
        self.failed = 0

    def draw(self, event: Any) -> None:
        from localllm.tasks.summarize import DocumentDone, Done, PartDone, Started

        if isinstance(event, Started):
            self._events("started", documents=event.documents, skipped=event.skipped)
            self._say(f"{event.documents} documents, {event.skipped} already done.")
        elif isinstance(event, PartDone):
            where = f"{'combining' if event.level else 'part'} {event.done} of {event.total}"
            self._events("progress", source=event.source, level=event.level, done=event.done, total=event.total)
            self._status(f"{event.source}: {where}")
        elif isinstance(event, DocumentDone):
            self._document(event.row)
        elif isinstance(event, Done):
            self._totals(event)

    def close(self) -> None:
        self._status("")

    def _document(self, row: dict[str, Any]) -> None:
        from localllm.sanitize import sanitize

        self._events("item", **row)
        if row["error"]:
            say(f"localllm: {row['error']}")
        else:
            self._say(f"{row['source']}: {len(row['parts'])} parts, {row['seconds']:.1f} s")
            if self._printing:
                print(sanitize(row["summary"]), flush=True)

    def _totals(self, done: Any) -> None:
        self.failed = done.failed
        tokens = done.prompt_tokens + done.output_tokens
        rate = tokens / done.seconds if done.seconds else 0.0
        self._events(
            "done", documents=done.documents, skipped=done.skipped, failed=done.failed, seconds=round(done.seconds, 3),
            tokens=tokens, prompt_tokens=done.prompt_tokens, output_tokens=done.output_tokens,
            tokens_per_second=round(rate, 1), peak_rss_mb=peak_rss_mb(),
        )  # fmt: skip
        written = done.documents - done.skipped
        self._say(f"{written} documents in {done.seconds:.1f} s, {tokens} tokens, {done.failed} failed.")
        if done.failed and done.skipped:
            self._say("Documents that failed in an earlier run are tried again with --retry-failed.")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._status("")
            say(text)

    def _status(self, text: str) -> None:
        if self._live:
            from localllm.sanitize import sanitize_line

            sys.stderr.write(f"\r\x1b[K{sanitize_line(text)[:100]}")
            sys.stderr.flush()
