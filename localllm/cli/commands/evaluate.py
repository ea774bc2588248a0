"""`localllm evaluate`: what an adapter changed; or, as `evaluate summaries`, how good summaries are."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm.cli import options
from localllm.cli.dataset_option import Datasets
from localllm.cli.output import Events, cancellable, peak_rss_mb, say
from localllm.errors import UsageError

if TYPE_CHECKING:
    from localllm.tasks.evaluating import EvaluateProgress, EvaluateResult, EvaluateStarted

_LINE_SECONDS = 10.0


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("adapter", metavar="ADAPTER", help="name or path of an adapter; or the word summaries")
    parser.add_argument(
        "results", nargs="?", type=Path, metavar="RESULTS", help="after `summaries`: what summarize or batch wrote"
    )
    parser.add_argument(
        "--refs", type=Path, metavar="FILE", help="with `summaries`: JSON Lines of id and summary, by people"
    )
    parser.add_argument("-m", "--model", metavar="M", help="name or path of its base (default: the one it names)")
    parser.add_argument("--data", metavar="DATA", help="compare on these rows (default: those held out)")
    parser.add_argument("--samples", type=int, metavar="N", help="answers that the report shows (default: 5)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page that opens in any browser, offline")
    options.add_json(parser, "print events, one JSON object a line")


def run(args: argparse.Namespace) -> int:
    if args.results or args.refs:
        return _summaries(args)
    registry = options.setup(args).registry
    from localllm.tasks.evaluating import SAMPLES, EvaluateProgress, EvaluateStarted, evaluate
    from localllm.tasks.report import check_target, report_on

    if args.report:
        check_target(args.report)
    events, drawn = Events(args.json), time.monotonic()
    samples = SAMPLES if args.samples is None else args.samples
    with cancellable() as cancel:
        data = Datasets(registry, events=events).path(args.data, cancel=cancel)
        for event in evaluate(registry, args.adapter, args.model, data, samples, cancel):
            if isinstance(event, EvaluateStarted):
                events("started", **asdict(event))
                if not args.json:
                    _started(event)
            elif isinstance(event, EvaluateProgress):
                events("progress", **asdict(event))
                if not args.json:
                    drawn = _progress(event, drawn)
            else:
                if not args.json:
                    _table(event)  # first, so that a full disk does not cost the numbers
                if args.report:
                    report_on(registry, event, args.report)
                events("done", **_totals(event, args.report))
                if not args.json:
                    _narrate(event, args.report)
    return 0


def _summaries(args: argparse.Namespace) -> int:
    if args.adapter != "summaries" or not args.results or not args.refs:
        raise UsageError("This is no way to evaluate.", "localllm evaluate summaries RESULTS --refs FILE")
    from localllm.cli.summary_scores import show

    return show(args.results, args.refs, json=args.json)


def _started(event: EvaluateStarted) -> None:
    some = f" of {event.available}" if event.available > event.rows else ""
    say(f"{event.adapter} against {event.model} on {event.rows}{some} {event.kind} rows, through llama.cpp.")
    if event.questions:
        say(f"{event.questions} answers by {event.measure}: {event.why}.")
    else:
        say("The rows are texts: there are no answers to judge.")


def _progress(event: EvaluateProgress, drawn: float) -> float:
    """A line now and then; returns when the last was drawn."""
    if time.monotonic() - drawn < _LINE_SECONDS:
        return drawn
    say(f"{event.done} of {event.total} rows read or answered")
    return time.monotonic()


def _table(result: EvaluateResult) -> None:
    from localllm.evaluate.verdict import readable

    print(f"{'':26}{'base':>10}{'adapter':>10}{'change':>10}")
    rows = result.rows
    print(f"{'loss':26}{rows.base.mean:10.4f}{rows.adapter.mean:10.4f}{rows.difference:+10.4f}")
    changes = {"perplexity": rows, "perplexity, general text": result.general, "perplexity, other topics": result.other}
    for name, change in changes.items():
        before, after = readable(change.base.perplexity), readable(change.adapter.perplexity)
        print(f"{name:26}{before:>10}{after:>10}{change.perplexity_change:+10.1%}")
    for scored in result.answers.scored if result.answers else ():
        difference = f"{(scored.after - scored.before) * 100:+.0f} points"
        print(f"{scored.name:26}{scored.before:10.1%}{scored.after:10.1%}{difference:>12}")
    print(result.verdict.words)


def _narrate(result: EvaluateResult, report: Path | None) -> None:
    if result.verdict.remark:
        say(f"localllm: warning: {result.verdict.remark}")
    say(f"{result.seconds:.1f} s, {result.tokens / max(result.seconds, 1e-9):.0f} tokens/s.")
    if report:
        say(f"Report: {report}")
    elif sys.stderr.isatty():
        say("--report FILE.html has the answers side by side and the loss curves.")


def _totals(result: EvaluateResult, report: Path | None) -> dict[str, Any]:
    return {
        **result.record(),
        "samples": [asdict(sample) for sample in result.samples],
        "report": str(report) if report else None,
        "tokens": result.tokens,
        "tokens_per_second": round(result.tokens / max(result.seconds, 1e-9), 1),
        "seconds": round(result.seconds, 3),
        "peak_rss_mb": peak_rss_mb(),
    }
