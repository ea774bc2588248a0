"""What the handbook names, taken out of its text, and what there really is."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from localllm.cli.main import build_parser
from localllm.handbook.entries import Entry

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = (
    "pip",
    "hf",
    "ollama",
    "llama-gguf-split",
    "mlx",
    "mlx_lm",
    "ray",
    "make",
    "docker",
    "ssh",
    "kill",
    "source",
    "cat",
)
"""Other people's programs: what they are told is not ours to check."""
_CODE = re.compile(r"`([^`]+)`")
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][\w-]*")


def spans(entry: Entry) -> list[str]:
    """What stands in backticks."""
    return _CODE.findall(entry.body)


def options_of(span: str) -> Iterator[str]:
    """The options in a piece of a command line, as they are typed."""
    for word in shlex.split(span.split(" -- ")[-1]):
        if _OPTION.fullmatch(word.partition("=")[0]):
            yield word.partition("=")[0]


@cache
def commands() -> dict[str, frozenset[str]]:
    """Each command, "data check" among them, and its options."""
    found: dict[str, frozenset[str]] = {}

    def visit(name: str, parser: argparse.ArgumentParser) -> None:
        found[name] = frozenset(parser._option_string_actions)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for sub, its in action.choices.items():
                    visit(f"{name} {sub}".strip(), its)

    visit("", build_parser(None))
    return found


def command_in(span: str) -> str | None:
    """The command that a span runs, "" for the program itself; None where it runs none of ours.

    Raises ValueError for one that does not exist.
    """
    words = shlex.split(span)
    if "localllm" not in words:
        return None
    after = words[words.index("localllm") + 1 :]
    name = ""
    for word in after:
        longer = f"{name} {word}".strip()
        if longer not in commands():
            break
        name = longer
    if not name and after and not after[0].startswith("-") and after[0] != "COMMAND":
        raise ValueError(f"there is no command {after[0]!r}")
    return name


@cache
def sources() -> str:
    """All of the program's own text but the handbook's."""
    files = [path for path in (ROOT / "localllm").rglob("*.py") if "handbook" not in path.parts]
    return "\n".join(path.read_text("utf-8") for path in sorted(files))
