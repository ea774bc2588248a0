"""`localllm bench SUBCOMMAND`: how fast things are on this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from localllm.cli import options
from localllm.cli.output import human_size, print_json, say

if TYPE_CHECKING:
    from localllm.tasks.bench_import import Absent, Measured, Run


def add(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="SUBCOMMAND", title="benchmarks", required=True)
    line = "reading a GGUF for MLX, beside transformers' loading of the same file: time and memory"
    one = what.add_parser("import", help=line, description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
    one.add_argument("file", metavar="FILE", help="path (or name) of a model")
    one.add_argument("--runs", type=int, default=3, metavar="N", help="processes for each program (default: 3)")
    one.add_argument(
        "--other",
        choices=("16bit", "8bit"),
        default="16bit",
        help="what types become that are not MLX's affine groups (default: 16bit)",
    )
    one.add_argument(
        "--peer", type=Path, metavar="PYTHON", help="an interpreter that has torch and transformers (default: this one)"
    )
    options.add_json(one)


def run(args: argparse.Namespace) -> int:
    return {"import": _import}[args.what](args)


def _import(args: argparse.Namespace) -> int:
    from localllm.tasks.bench_import import Absent, Measured, bench_import

    path = options.setup(args).registry.model(args.file).path
    rows: list[Measured | Absent] = []
    for event in bench_import(path, runs=args.runs, other=args.other, peer=args.peer):
        if isinstance(event, (Measured, Absent)):
            rows.append(event)
        else:
            say(_run_line(event))
    if args.json:
        print_json({"file": str(path), "bytes": path.stat().st_size, "programs": [asdict(row) for row in rows]})
    else:
        _table(rows)
    return 0


def _run_line(run: Run) -> str:
    memory = "" if run.peak_bytes is None else f", {human_size(run.peak_bytes)} at most"
    return f"{run.program}: {run.seconds:.2f} s ({run.cpu_seconds:.2f} s of CPU){memory}"


def _table(rows: list[Measured | Absent]) -> None:
    from localllm.sanitize import sanitize_line
    from localllm.tasks.bench_import import Absent

    sizes_of = " ".join(f"{title:>9}" for title in ("RESULT", "PEAK", "BEYOND", "RESIDENT"))
    print(f"{'PROGRAM':20} {'SECONDS':>8} {'CPU':>7} {'MB/S':>7} {sizes_of} THREADS")
    for row in rows:
        if isinstance(row, Absent):
            print(sanitize_line(f"{row.program:20} not measured: {row.reason}. {row.hint}."))
            continue
        sizes = (row.result_bytes, row.peak_bytes, row.extra_bytes, row.peak_resident)
        cells = " ".join(f"{'?' if size is None else human_size(size):>9}" for size in sizes)
        name = sanitize_line(f"{row.program} {row.version}")
        print(f"{name:20} {row.seconds:8.2f} {row.cpu_seconds:7.2f} {row.mb_per_second:7.0f} {cells} {row.threads:7}")
    ours = rows[0]
    if not isinstance(ours, Absent) and ours.extra_in_largest is not None:
        print(f"\nbeyond the result: {ours.extra_in_largest:.2f} of the largest tensor in the file")
    print("CPU: seconds of all threads; PEAK: memory written by the process, without mapped files; RESIDENT: all of it")
    print("streaming: ours, each tensor let go before the next; RESULT is then the largest; BEYOND: what PEAK has more")
    print("medians; each run is a process of its own")
