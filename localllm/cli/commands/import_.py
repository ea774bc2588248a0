"""`localllm import`: make an adapter from elsewhere one of ours."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localllm.cli import options
from localllm.cli.output import Events, cancellable, human_size, peak_rss_mb, say
from localllm.cli.verdict import draw


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "adapter", type=Path, metavar="ADAPTER", help="folder of mlx-lm, PEFT or localllm, or a GGUF LoRA"
    )
    parser.add_argument("-m", "--model", metavar="M", help="name or path of its base (default: the built-in one)")
    parser.add_argument("-n", "--name", metavar="NAME", help="what to call it (default: the folder's or file's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace an adapter of that name")
    parser.add_argument("--no-verify", action="store_true", help="do not compare llama.cpp with MLX before it is kept")
    options.add_json(parser, "print events, one JSON object a line")


def run(args: argparse.Namespace) -> int:
    setup = options.setup(args)
    from localllm.tasks.importing import Imported, ImportNote, ImportRequest, ImportStarted, import_adapter
    from localllm.tasks.verify import VerifyProgress, VerifyResult

    name = args.name or (args.adapter.resolve().name if args.adapter.is_dir() else args.adapter.stem)
    request = ImportRequest(args.adapter, setup.model, name, args.overwrite, not args.no_verify)
    events = Events(args.json)
    with cancellable() as cancel:
        for event in import_adapter(setup.registry, request, cancel):
            if isinstance(event, ImportStarted):
                events("started", **asdict(event))
                if not args.json:
                    say(f"{event.format} adapter on {event.layers} modules of {event.model}.")
            elif isinstance(event, ImportNote):
                events("warning", **asdict(event))
                if not args.json:
                    say(event.message)
            elif isinstance(event, VerifyProgress):
                events("progress", **asdict(event))
            elif isinstance(event, VerifyResult):
                events("item", **event.certificate)
                if not args.json:
                    draw(event)
            elif isinstance(event, Imported):
                events("done", **_totals(event))
                if not args.json:
                    _print(event)
    return 0


def _totals(done: Any) -> dict[str, Any]:
    fields = asdict(done)
    adapter = fields.pop("adapter")
    where = {"adapter": adapter["name"], "path": str(adapter["path"]), "base_sha256": adapter["base_sha256"]}
    return {**where, **fields, "seconds": round(done.seconds, 3), "peak_rss_mb": peak_rss_mb()}


def _print(done: Any) -> None:
    print(f"adapter {done.adapter.name}: {done.adapter.path}")
    print(f"{done.layers} modules, rank {done.rank}, alpha {done.alpha:g}, {human_size(done.bytes)}")
    say(f'Try it: localllm ask --adapter {done.adapter.name} "..."')
