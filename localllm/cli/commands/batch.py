"""`localllm batch`: any prompts, from a file in OpenAI's batch format."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm.cli import endpoint, options
from localllm.cli.output import Events, cancellable, peak_rss_mb, say
from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.tasks.answerer import Answerer
    from localllm.tasks.batch import Done, RequestDone, Started

SOME_FAILED = 3
_LINE_SECONDS = 10.0


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "requests",
        type=Path,
        metavar="REQUESTS",
        help='JSON Lines of {"custom_id", "method", "url", "body"}; urls: /v1/chat/completions and /v1/embeddings',
    )
    parser.add_argument(
        "-o", "--out", type=Path, metavar="FILE", required=True, help="JSON Lines file, one row appended per request"
    )
    options.add_model(parser)
    parser.add_argument("--template", metavar="NAME", help="chat template for a file without one")
    parser.add_argument(
        "--parallel",
        type=int,
        metavar="N",
        help="requests side by side (default: what memory and cores allow; 8 at a server)",
    )
    options.add_force(parser)
    endpoint.add_ray(parser)
    group = endpoint.add(parser)
    group.add_argument("--timeout", type=float, metavar="S", help="seconds to wait for an answer (default: 600)")
    parser.add_argument("--retry-failed", action="store_true", help="try requests again that failed in an earlier run")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options.add_json(parser, "print events, one JSON object a line")
    parser.epilog = (
        "Sampling is greedy unless a request's body says otherwise. Fields that would change an answer and are not\n"
        "supported are refused by name, as a row with an error. A second run answers only what has no answer yet."
    )


def run(args: argparse.Namespace) -> int:
    if args.parallel is not None and args.parallel < 1:
        raise UsageError(f"--parallel must be 1 or more, not {args.parallel}.")
    from localllm.tasks.batch import BatchRequest, batch

    request = BatchRequest(args.requests, args.out, args.retry_failed)
    view = _View(Events(args.json), quiet=args.quiet or args.json)
    answerer = _answerer(args)
    with cancellable() as cancel:
        try:
            for event in batch(request, answerer, cancel):
                view.draw(event)
        finally:
            view.close()
            answerer.close()
    return SOME_FAILED if view.failed else 0


def _answerer(args: argparse.Namespace) -> Answerer:
    if args.timeout is not None and not 0 < args.timeout < math.inf:
        raise UsageError(f"--timeout must be above 0, not {args.timeout:g}.")
    if args.timeout is not None and args.endpoint is None:
        raise UsageError("--timeout needs --endpoint.", "Name the server.")
    local = ("model", "adapter", "ctx", "threads", "template", "ray", "force")
    if server := endpoint.given(args, local, parallel=args.parallel, timeout=args.timeout):
        from localllm.tasks.answer_endpoint import EndpointAnswerer

        return EndpointAnswerer(server)
    from localllm.tasks.answer_local import local_answerer

    setup = options.setup(args)
    how: dict[str, Any] = {
        "n_ctx": setup.n_ctx, "n_threads": setup.n_threads, "n_slots": args.parallel, "template": args.template,
        "force": args.force,
    }  # fmt: skip
    here = local_answerer(setup.registry, setup.model, setup.adapter, **how)
    if args.ray is None:
        return here
    from localllm.tasks.answer_ray import RayAnswerer, elsewhere
    from localllm.tasks.ray_nodes import Cluster

    names = {"model": elsewhere(setup.model), "adapter": elsewhere(setup.adapter) if setup.adapter else None}
    return RayAnswerer(Cluster(args.ray), here, {**names, **how})


class _View:
    """Draws the task's events: progress on standard error, JSON lines on standard output."""

    def __init__(self, events: Events, *, quiet: bool) -> None:
        self._events, self._quiet = events, quiet
        self._live = not quiet and sys.stderr.isatty()
        self._began = self._drawn = time.monotonic()
        self._todo = self._done = self._tokens = 0
        self.failed = 0

    def draw(self, event: Any) -> None:
        from localllm.tasks.batch import Done, RequestDone, Started

        if isinstance(event, Started):
            self._started(event)
        elif isinstance(event, RequestDone):
            self._request(event)
        elif isinstance(event, Done):
            self._totals(event)

    def close(self) -> None:
        self._status("")

    def _started(self, event: Started) -> None:
        self._todo = event.requests - event.skipped
        self._events("started", requests=event.requests, skipped=event.skipped, model=event.answerer)
        self._say(f"{event.requests} requests, {event.skipped} already done; answered by {event.answerer}.")

    def _request(self, event: RequestDone) -> None:
        row, error = event.row, event.row["error"]
        self._done, self._tokens = self._done + 1, self._tokens + event.prompt_tokens + event.output_tokens
        self._events(
            "item", custom_id=row["custom_id"], error=error, prompt_tokens=event.prompt_tokens,
            output_tokens=event.output_tokens,
        )  # fmt: skip
        if error:
            self._status("")
            say(f"localllm: {row['custom_id'] or 'no request'}: {error['message']}")
        now = time.monotonic()
        progress = f"{self._done} of {self._todo} requests, {self._tokens / max(now - self._began, 1e-9):.0f} tokens/s"
        self._status(progress)
        if not self._live and now - self._drawn >= _LINE_SECONDS:
            self._drawn = now
            self._say(progress)

    def _totals(self, done: Done) -> None:
        self.failed = done.failed
        tokens = done.prompt_tokens + done.output_tokens
        rate = tokens / done.seconds if done.seconds else 0.0
        self._events(
            "done", requests=done.requests, skipped=done.skipped, failed=done.failed, seconds=round(done.seconds, 3),
            tokens=tokens, prompt_tokens=done.prompt_tokens, output_tokens=done.output_tokens,
            tokens_per_second=round(rate, 1), peak_rss_mb=peak_rss_mb(),
        )  # fmt: skip
        written = done.requests - done.skipped
        self._say(f"{written} requests in {done.seconds:.1f} s, {tokens} tokens, {done.failed} failed.")
        if done.failed and done.skipped:
            self._say("Requests that failed in an earlier run are tried again with --retry-failed.")

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._status("")
            say(text)

    def _status(self, text: str) -> None:
        if self._live:
            from localllm.sanitize import sanitize_line

            sys.stderr.write(f"\r\x1b[K{sanitize_line(text)[:100]}")
            sys.stderr.flush()
