"""`localllm show`: everything about one model or adapter."""

from __future__ import annotations

import argparse
from typing import Any

from localllm.cli import options
from localllm.cli.output import human_size, print_json


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name or path of a model or adapter")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    from localllm.tasks.inventory import show

    facts = show(options.setup(args).registry, args.name)
    if args.json:
        print_json(facts)
    else:
        _print("", facts)
    return 0


def _print(indent: str, facts: dict[str, Any]) -> None:
    from localllm.sanitize import sanitize_line

    for key, value in facts.items():
        label = f"{indent}{sanitize_line(str(key)).replace('_', ' ')}"
        if isinstance(value, dict):
            print(label)
            _print(indent + "  ", value)
        elif value not in (None, "", []):
            print(f"{label:18} {sanitize_line(_text(key, value))}")


def _text(key: str, value: Any) -> str:
    if key == "bytes":
        return human_size(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if key in ("parameters", "context") else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
