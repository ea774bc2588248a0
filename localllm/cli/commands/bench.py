"""`localllm bench SUBCOMMAND`: how fast things are on this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localllm.cli import options
from localllm.cli.output import human_size, print_json, say
from localllm.sanitize import sanitize_line

WORK: tuple[WorkName, ...] = ("documents", "instruction", "chat", "lookup")
KINDS: tuple[Kind, ...] = ("ours", "inside", "exact", "server", "python", "bound")

if TYPE_CHECKING:
    from localllm.tasks.bench_batch import Kind
    from localllm.tasks.bench_import import Absent, Measured, Run
    from localllm.tasks.bench_work import WorkName


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
    _add_train(what)
    _add_batch(what)


def _add_train(what: Any) -> None:
    line = "fine-tuning of the same rows, beside PEFT and mlx_lm.lora: tokens per second and memory"
    one = what.add_parser("train", help=line, description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
    one.add_argument("file", metavar="MODEL", help="path (or name) of a GGUF")
    one.add_argument("data", type=Path, metavar="DATA", help="a dataset, of which the first rows are taken")
    one.add_argument("--hf", type=Path, metavar="FOLDER", help="the same model as a Hugging Face folder, for the peers")
    one.add_argument(
        "--peer", type=Path, metavar="PYTHON", help="an interpreter that has torch and peft (default: this one)"
    )
    for name, default, meaning in (
        ("--batch-size", 4, "rows a step"),
        ("--steps", 14, "steps of a run, of which the first two do not count"),
        ("--rank", 8, "of the adapter, on all linear layers"),
        ("--runs", 3, "processes for each program"),
    ):
        one.add_argument(name, type=int, default=default, metavar="N", help=f"{meaning} (default: {default})")
    options.add_json(one)


def _add_batch(what: Any) -> None:
    line = "many prompts side by side, and one alone, beside llama.cpp's programs and llama-cpp-python"
    one = what.add_parser("batch", help=line, description=f"{line[0].upper()}{line[1:]}.", allow_abbrev=False)
    one.add_argument("file", metavar="MODEL", help="path (or name) of a GGUF with a chat template")
    one.add_argument("text", type=Path, metavar="TEXT", help="a long text, which documents are cut from")
    one.add_argument("--work", action="append", choices=WORK, help="may be repeated (default: all but lookup)")
    one.add_argument("--programs", action="append", choices=KINDS, help="may be repeated (default: all)")
    one.add_argument("--peer-bin", type=Path, metavar="FOLDER", help="holds llama-server and llama-batched-bench")
    one.add_argument("--peer", type=Path, metavar="PYTHON", help="has llama-cpp-python (default: this one)")
    one.add_argument("--prompts", type=Path, metavar="FILE", help='rows of {"text": ...} for --work lookup')
    one.add_argument("--slots", type=int, metavar="N", help="answers side by side (default: what memory allows)")
    one.add_argument("--threads", type=int, metavar="N", help="CPU threads of all programs (default: the cores)")
    for name, default, meaning in (
        ("--peer-slots", 8, "slots of llama-server"),
        ("--documents", 24, "documents"),
        ("--document-tokens", 600, "tokens of each"),
        ("--max-tokens", 48, "tokens of each answer"),
        ("--runs", 3, "rounds, in each of which every program runs once"),
    ):
        one.add_argument(name, type=int, default=default, metavar="N", help=f"{meaning} (default: {default})")
    options.add_json(one)


def run(args: argparse.Namespace) -> int:
    return {"import": _import, "train": _train, "batch": _batch}[args.what](args)


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


def _train(args: argparse.Namespace) -> int:
    from localllm.tasks.bench_import import Absent
    from localllm.tasks.bench_train import TrainingMedians, bench_train

    setup = options.setup(args)
    path, rows = setup.registry.model(args.file).path, []
    chosen = {"batch": args.batch_size, "steps": args.steps, "rank": args.rank, "runs": args.runs}
    for event in bench_train(path, args.data, setup.registry.home.cache, folder=args.hf, peer=args.peer, **chosen):
        if isinstance(event, TrainingMedians):
            rows.append(event)
        elif isinstance(event, Absent):
            say(sanitize_line(f"{event.program}: not measured: {event.reason}. {event.hint}."))
        else:
            say(f"{event.program}: {event.tokens_per_second:.1f} tokens/s, {human_size(event.peak_rss)} at most")
    if args.json:
        print_json({"model": str(path), **chosen, "programs": [asdict(row) for row in rows]})
        return 0
    print(f"{'PROGRAM':44} {'RUNS':>4} {'TOKENS/S':>9} {'PEAK':>9} {'SPEED':>7} {'MEMORY':>7}")
    for row in rows:
        speed, memory = rows[0].tokens_per_second / row.tokens_per_second, rows[0].peak_rss / row.peak_rss
        name = sanitize_line(f"{row.program} ({row.version})")
        print(
            f"{name:44} {row.runs:4} {row.tokens_per_second:9.1f} {human_size(row.peak_rss):>9} {speed:6.2f}x "
            f"{memory:6.2f}x"
        )
    print("\nTOKENS/S: all tokens but padding; SPEED and MEMORY: ours over theirs; medians of processes run in turn")
    return 0


def _batch(args: argparse.Namespace) -> int:
    from localllm.cli.bench_batch_view import BatchTable
    from localllm.tasks.bench_batch import Settings, bench_batch
    from localllm.tasks.bench_work import Sizes

    setup = options.setup(args)
    settings = Settings(args.runs, args.slots, args.peer_slots, setup.n_threads, tuple(args.programs or KINDS))
    sizes = Sizes(args.documents, args.document_tokens, args.max_tokens)
    path, table = setup.registry.model(args.file).path, BatchTable()
    places = {"prompts": args.prompts, "binaries": args.peer_bin, "interpreter": args.peer}
    for event in bench_batch(path, args.text, args.work or WORK[:-1], sizes, settings, **places):
        table.take(event)
    if args.json:
        print_json({"model": str(path), **asdict(sizes), "runs": args.runs, **table.as_json()})
    else:
        table.print()
    return 0


def _run_line(run: Run) -> str:
    memory = "" if run.peak_bytes is None else f", {human_size(run.peak_bytes)} at most"
    return f"{run.program}: {run.seconds:.2f} s ({run.cpu_seconds:.2f} s of CPU){memory}"


def _table(rows: list[Measured | Absent]) -> None:
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
