"""`localllm du`: how much of the disk models and adapters take, and whose they are."""

from __future__ import annotations

import argparse

from localllm.cli import options
from localllm.cli.output import human_size, print_json


def add(parser: argparse.ArgumentParser) -> None:
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from localllm.sanitize import sanitize_line
    from localllm.tasks.disk_usage import disk_usage, total

    rows = disk_usage(options.setup(args).registry)
    if args.json:
        print_json({"rows": [asdict(row) for row in rows], "bytes": total(rows)})
        return 0
    print(f"{'WHAT':18} {'OF':16} {'NUMBER':>6} {'SIZE':>9}  WHERE")
    for row in rows:
        size = human_size(row.bytes)
        print(f"{row.what:18} {row.owner:16} {row.count:>6} {size:>9}  {sanitize_line(row.where)}")
    print(f"\n{human_size(total(rows))} are ours to remove: localllm rm NAME, localllm prune")
    return 0
