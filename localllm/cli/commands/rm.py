"""`localllm rm`: remove a model or an adapter."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from localllm.cli import options
from localllm.cli.output import human_size, print_json, say

if TYPE_CHECKING:
    from localllm.tasks.removing import Removal


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="an adapter, a model of yours, or one that was pulled")
    parser.add_argument("--files", action="store_true", help="of a pulled model also its files in the hub's cache")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from localllm.cli.confirm import confirm
    from localllm.sanitize import sanitize_line
    from localllm.tasks.removing import plan_removal, remove

    removal = plan_removal(options.setup(args).registry, args.name, files=args.files)
    for line in _warnings(removal):
        say(sanitize_line(line))
    confirm(f"Remove the {removal.kind} {sanitize_line(removal.name)} ({human_size(removal.bytes)})?", yes=args.yes)
    remove(removal)
    if args.json:
        paths = [str(path) for path in removal.paths]
        facts = {"name": removal.name, "kind": removal.kind, "removed": paths, "bytes": removal.bytes}
        print_json(facts | {"broken_adapters": list(removal.breaks), "left": str(removal.left or "") or None})
    else:
        print(sanitize_line(f"Removed the {removal.kind} {removal.name}: {human_size(removal.bytes)} are free."))
    return 0


def _warnings(removal: Removal) -> list[str]:
    lines = []
    if removal.breaks:
        lines.append(f"Without it these adapters cannot be used: {', '.join(removal.breaks)}.")
    if removal.left:
        lines.append(f"Its files stay in the hub's cache, which other programs share ({removal.left}); add --files.")
    return lines
