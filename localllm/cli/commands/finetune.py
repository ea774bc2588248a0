"""`localllm finetune`: teach a model from a small file."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm.cli import dataset_option, finetune_options, options
from localllm.cli.dataset_option import Datasets
from localllm.cli.launched import cancel_without_launcher
from localllm.cli.output import Events, cancellable, say
from localllm.cli.training_view import TrainingView

if TYPE_CHECKING:
    from localllm.store.registry import Registry
    from localllm.tasks.preparing import FinetuneRequest
    from localllm.tune.ranks import Place


SEVERAL = """on several machines, or in several processes, that share out the rows of each batch:
  mlx.launch -n 2 -- localllm finetune DATA ...
  mlx.launch --hostfile macs.json -- localllm finetune DATA ..."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = SEVERAL
    parser.add_argument(
        "data",
        metavar="DATA",
        help=f"{dataset_option.HELP}; `localllm data check` looks at it without a model",
    )
    dataset_option.add_revision(parser)
    parser.add_argument("-m", "--model", metavar="M", help="name or path of the model (default: the built-in one)")
    parser.add_argument(
        "--mlx",
        type=Path,
        metavar="FOLDER",
        help="an MLX folder with the same model as the GGUF of --model, 16-bit or quantized: train on its weights",
    )
    parser.add_argument("-n", "--name", metavar="NAME", help="what to call the adapter (default: the data file's name)")
    parser.add_argument("--valid", metavar="FILE", help="rows to validate on (default: a tenth of DATA)")
    parser.add_argument("--test", metavar="FILE", help="rows to answer before and after, exactly")
    parser.add_argument(
        "--rehearse",
        metavar="FILE[:SHARE]",
        help="mix in rows of other data (default: a tenth of all) against forgetting",
    )
    finetune_options.add(parser)
    parser.add_argument(
        "--too-long",
        choices=("error", "skip", "split"),
        help="rows over --max-length: error (default), skip them, or split them: texts into windows, conversations "
        "between questions",
    )
    parser.add_argument(
        "--train-on",
        choices=("assistant", "last", "all"),
        help="what is learned: every answer of the assistant (default), the last one of each row, or every token",
    )
    parser.add_argument(
        "--other",
        choices=("16bit", "8bit"),
        help="on a GPU, where 4-bit blocks stay as they are: what Q6_K and other types without an MLX form become "
        "(default: 16bit; `show --tensors` has the error of each)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an adapter of that name")
    memory = parser.add_mutually_exclusive_group()
    memory.add_argument("--auto", action="store_true", help="where it does not fit the memory, take settings that do")
    memory.add_argument(
        "--force", "--ignore-memory", dest="ignore_memory", action="store_true", help="also what memory does not hold"
    )
    parser.add_argument("--no-report", action="store_true", help="do not measure what changed and write report.html")
    left = parser.add_mutually_exclusive_group()
    left.add_argument("--resume", action="store_true", help="insist on a run of that name that was left unfinished")
    left.add_argument("--restart", action="store_true", help="begin anew even if a run of that name was left")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options.add_json(parser, "print events, one JSON object a line")


def run(args: argparse.Namespace) -> int:
    setup = options.setup(args)
    from localllm.tasks.finetune import Done, finetune
    from localllm.tune.ranks import place

    events = Events(args.json)
    request = _request(args, setup, events)
    if (where := place(os.environ)).rank:
        return _follow(setup.registry, request, where)
    with cancellable() as cancel, TrainingView(quiet=args.quiet or args.json) as view:
        cancel_without_launcher(cancel, where)
        for event in finetune(setup.registry, request, cancel, where):
            if isinstance(event, Done):
                events("done", **_totals(event))
                done = event
            else:
                name, fields = _named(event)
                events(name, **fields)
                view.draw(event)
    if not args.json:
        _summary(done, args.quiet)
    return 0


def _request(args: argparse.Namespace, setup: options.Setup, events: Events) -> FinetuneRequest:
    """What was asked for, with datasets of the hub fetched."""
    from localllm.tasks.preparing import FinetuneRequest
    from localllm.tasks.rehearsing import parse

    chosen = finetune_options.names() | {"too_long", "train_on", "other"}
    given = {name: value for name in chosen if (value := getattr(args, name)) is not None}
    rehearsal = parse(args.rehearse) if args.rehearse else None
    datasets = Datasets(setup.registry, quiet=args.quiet, events=events)
    with cancellable() as cancel:
        data = datasets.rows(args.data, args.revision, cancel=cancel)
        valid, test = datasets.path(args.valid, cancel=cancel), datasets.path(args.test, test=True, cancel=cancel)
        if rehearsal:
            rehearsal = replace(rehearsal, path=datasets.rows(str(rehearsal.path), cancel=cancel).path)
    return FinetuneRequest(
        data=data.path,
        source=data.label,
        name=args.name or data.name,
        model=setup.model,
        mlx=args.mlx,
        valid=valid,
        test=test,
        rehearse=rehearsal,
        overwrite=args.overwrite,
        auto=args.auto,
        ignore_memory=args.ignore_memory,
        report=not args.no_report,
        resume=args.resume,
        restart=args.restart,
        **given,
    )


def _follow(registry: Registry, request: FinetuneRequest, where: Place) -> int:
    """Train a share of what another process leads and tells of; returns the exit code."""
    from localllm.tasks.together import follow

    say(f"localllm: process {where.rank} of {where.size} trains its share; process 0 tells how it goes.")
    with cancellable() as cancel:
        cancel_without_launcher(cancel, where)
        follow(registry, request, where, cancel)
    return 0


def _named(event: Any) -> tuple[str, dict[str, Any]]:
    """The event's name in --json output, and its fields; `phase` tells the kinds of progress apart."""
    kind = type(event).__name__
    if kind == "Started":
        return "started", asdict(event)
    if kind == "Warned":
        return "warning", asdict(event)
    return "progress", {"phase": kind, **asdict(event)}


def _totals(done: Any) -> dict[str, Any]:
    fields = asdict(done)
    adapter, verify = fields.pop("adapter"), fields.pop("agreement") | {"conversion": fields.pop("conversion")}
    return {
        **fields,
        "adapter": adapter["name"],
        "path": str(adapter["path"]),
        "base_sha256": adapter["base_sha256"],
        "verify": verify,
    }


def _summary(done: Any, quiet: bool) -> None:
    a = done.agreement
    print(f"adapter {done.adapter.name}: {done.adapter.path}")
    print(f"validation loss {done.base_loss:.3f} before, {done.loss:.3f} after (best epoch {done.best_epoch})")
    if done.exact_before is not None and done.exact_after is not None:
        before, after = done.exact_before, done.exact_after
        print(f"exact answers on {done.tested} test rows: {before:.0%} before, {after:.0%} after")
    exact = f"{done.conversion.kl:.1e} on float32 weights, " if done.conversion else ""
    print(f"verified in llama.cpp: mean KL {exact}{a.kl:.1e} on the file itself; effect cosine {a.effect_cosine:.4f}")
    if done.verdict:
        print(f"{done.verdict}\nreport: {done.report}")
    if not quiet:
        say(f"{done.seconds:.0f} s, {done.tokens_per_second:.0f} tokens/s, {done.peak_rss_mb:.0f} MB at most.")
        say(f'Try it: localllm ask --adapter {done.adapter.name} "..."')
