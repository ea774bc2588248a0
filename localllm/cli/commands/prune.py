"""`localllm prune`: remove what interrupted work has left behind."""

from __future__ import annotations

import argparse
import math

from localllm.cli import options
from localllm.cli.output import human_size, print_json
from localllm.errors import UsageError


def add(parser: argparse.ArgumentParser) -> None:
    what = "only what has not changed for so many days (default: 7)"
    parser.add_argument("--older-than", type=float, default=7.0, metavar="DAYS", help=what)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from localllm.cli.confirm import confirm
    from localllm.sanitize import sanitize_line
    from localllm.tasks.pruning import leftovers
    from localllm.tasks.removing import Removal, remove

    if not math.isfinite(args.older_than) or args.older_than < 0:
        raise UsageError(f"--older-than must be 0 or more days, not {args.older_than:g}.")
    found = leftovers(options.setup(args).registry, args.older_than)
    size = sum(one.bytes for one in found)
    if not args.json:
        for one in found:
            line = f"{one.kind:18} {human_size(one.bytes):>9}  {one.days:5.0f} days  {one.paths[0]}"
            print(sanitize_line(line.replace(" ", "\u00a0")).replace("\u00a0", " "))
    if found and not args.dry_run:
        confirm(f"Remove {len(found)} leftovers ({human_size(size)})?", yes=args.yes)
        for one in found:
            remove(Removal(one.paths[0].name, one.kind, one.paths, one.bytes))
    if args.json:
        rows = [{"kind": o.kind, "path": str(o.paths[0]), "bytes": o.bytes, "days": round(o.days, 2)} for o in found]
        print_json({"leftovers": rows, "bytes": size, "removed": not args.dry_run})
    else:
        print(_said(len(found), size, dry=args.dry_run))
    return 0


def _said(count: int, size: int, *, dry: bool) -> str:
    if not count:
        return "Nothing is left behind."
    return f"{human_size(size)} {'would be' if dry else 'are'} free."
