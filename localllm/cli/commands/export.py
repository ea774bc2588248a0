"""`localllm export`: take an adapter elsewhere."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from localllm.cli import options
from localllm.cli.output import Events, cancellable, human_size, peak_rss_mb, say
from localllm.errors import UsageError

TARGETS = ("gguf", "peft", "mlx", "merged", "ollama")
_EPILOG = """targets:
  gguf     the adapter as one file, for llama.cpp and what is built on it
  peft     a folder for peft.PeftModel.from_pretrained
  mlx      a folder for mlx_lm.generate --adapter-path
  merged   a whole model in one GGUF, the adapters added into its weights; keeps each tensor's type, or takes --type
  ollama   a folder with a Modelfile, the base (a hard link where possible) and the adapter; then: ollama create

examples:
  localllm export tickets --to ollama --out tickets-ollama
  localllm export support:0.7 style:0.3 --to merged --out both.gguf"""


def add(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _EPILOG
    parser.add_argument(
        "adapters",
        nargs="+",
        metavar="ADAPTER[:SCALE]",
        help="name or path of an adapter, ours or not; SCALE is how strongly it counts (default: 1)",
    )
    parser.add_argument("--to", required=True, choices=TARGETS, help="what to make of it; see below")
    parser.add_argument("--out", required=True, type=Path, metavar="PATH", help="file or folder to write")
    parser.add_argument("-m", "--model", metavar="M", help="name or path of its base (default: the one it names)")
    parser.add_argument("--type", metavar="T", help="merged: quantize to this type, such as Q4_K_M (default: as it is)")
    parser.add_argument("--imatrix", type=Path, metavar="FILE", help="merged: importance matrix to quantize with")
    parser.add_argument("--copy", action="store_true", help="ollama: copy the base, never link to it")
    parser.add_argument("--overwrite", action="store_true", help="replace what lies at PATH")
    options.add_json(parser, "print events, one JSON object a line")


def run(args: argparse.Namespace) -> int:
    registry = options.setup(args).registry
    from localllm.tasks.exporting import Exported, ExportNote, ExportRequest, ExportStarted, export

    request = ExportRequest(
        adapters=[scaled(text) for text in args.adapters],
        to=args.to,
        out=args.out.expanduser(),
        model=args.model,
        type=args.type,
        imatrix=args.imatrix,
        copy=args.copy,
        overwrite=args.overwrite,
    )
    events = Events(args.json)
    with cancellable() as cancel:
        for event in export(registry, request, cancel):
            if isinstance(event, Exported):
                events("done", **_totals(event))
                if not args.json:
                    _print(event)
            elif isinstance(event, ExportNote):
                events("warning", **asdict(event))
                if not args.json:
                    say(event.message)
            else:
                kind = "started" if isinstance(event, ExportStarted) else "progress"
                events(kind, **({} if kind == "started" else {"phase": type(event).__name__}), **asdict(event))
    return 0


def scaled(text: str) -> tuple[str, float]:
    """ADAPTER[:SCALE]; a path that is there is taken as it is. Raises UsageError for a scale that is no number."""
    name, colon, scale = text.rpartition(":")
    if not colon or not name or Path(text).exists():
        return text, 1.0
    with contextlib.suppress(ValueError):
        number = float(scale)
        if number == number and abs(number) != float("inf") and number != 0:
            return name, number
    raise UsageError(f"{scale!r} in {text!r} is not a strength.", "Write ADAPTER:SCALE, for example tickets:0.5.")


def _totals(done: Any) -> dict[str, Any]:
    return {**asdict(done), "seconds": round(done.seconds, 3), "peak_rss_mb": peak_rss_mb()}


def _print(done: Any) -> None:
    print(f"{done.path}: {', '.join(f'{name} ({human_size(size)})' for name, size in done.files.items())}")
    if done.kept is not None:
        print(
            f"rounding left {done.kept_overall:.1%} of what the adapters change; least, {done.kept:.1%}, in "
            f"{done.kept_tensor}"
        )
    if done.to == "ollama":
        say(f"Use it: ollama create {done.path.name} -f {done.path / 'Modelfile'}")
