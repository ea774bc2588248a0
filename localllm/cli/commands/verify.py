"""`localllm verify`: prove that an adapter does in llama.cpp what it did in MLX."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

from localllm.cli import options
from localllm.cli.dataset_option import Datasets
from localllm.cli.output import Events, cancellable, peak_rss_mb, say
from localllm.cli.verdict import draw


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", metavar="ADAPTER", help="name of an adapter, or the path of one from elsewhere")
    parser.add_argument("-m", "--model", metavar="M", help="name or path of its base (default: the one it names)")
    parser.add_argument(
        "--data", metavar="DATA", help="compare on these rows (default: those held out, or built-in ones)"
    )
    options.add_json(parser, "print events, one JSON object a line")


def run(args: argparse.Namespace) -> int:
    registry = options.setup(args).registry
    from localllm.tasks.verify import VerifyProgress, VerifyResult, VerifyStarted, verify

    events, begin = Events(args.json), time.perf_counter()
    with cancellable() as cancel:
        data = Datasets(registry, events=events).path(args.data, cancel=cancel)
        for event in verify(registry, args.adapter, args.model, data, cancel):
            if isinstance(event, VerifyStarted):
                events("started", **asdict(event))
                if not args.json:
                    say(f"Comparing {event.positions} positions of {event.rows} {event.kind} rows on {event.model}.")
            elif isinstance(event, VerifyProgress):
                events("progress", **asdict(event))
            elif isinstance(event, VerifyResult):
                seconds = time.perf_counter() - begin
                events("done", **_totals(event, seconds))
                if not args.json:
                    draw(event)
    return 0


def _totals(result: Any, seconds: float) -> dict[str, Any]:
    return {
        "adapter": result.adapter,
        "passed": result.passed,
        "problem": result.problem,
        "remark": result.remark,
        **result.certificate,
        "tokens": result.agreement.positions,
        "tokens_per_second": round(result.agreement.positions / seconds, 1),
        "seconds": round(seconds, 3),
        "peak_rss_mb": peak_rss_mb(),
    }
