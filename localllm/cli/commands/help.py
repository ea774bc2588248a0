"""`localllm help`: the handbook, by topic or by question."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from localllm.cli import options
from localllm.cli.output import print_json
from localllm.errors import LocalLLMError, UsageError

if TYPE_CHECKING:
    from localllm.handbook.entries import Entry
    from localllm.handbook.index import Hit

_WIDTH = 100
_NEAR = 0.4
"""Certainty from which on entries are named that are not sure enough to be printed."""
_CLOSE = 0.75
"""Without -n, entries are printed that have at least this part of the first one's points."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("question", nargs="*", metavar="TOPIC|QUESTION", help="(default: list all topics by kind)")
    parser.add_argument("-n", type=int, default=None, metavar="N", help="entries to print (default: 1 to 3)")
    options.add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.n is not None and args.n < 1:
        raise UsageError(f"-n must be 1 or more, not {args.n}.")
    question = " ".join(args.question).strip()
    if not question:
        _topics(args.json)
        return 0
    hits = _find(question, args.n)
    if args.json:
        print_json({"question": question, "entries": [_facts(hit) for hit in hits]})
    else:
        print("\n\n".join(_drawn(hit.entry) for hit in hits))
    return 0


def _find(question: str, most: int | None) -> list[Hit]:
    """One entry by its id or title, else the best ones; those that are much worse than the first only where asked.

    Raises LocalLLMError where none is about the question.
    """
    from localllm.handbook.entries import entries
    from localllm.handbook.index import Hit, answers, handbook

    name = question.lower()
    named = [entry for entry in entries() if name in (entry.id, entry.id.replace("-", " "), entry.title.lower())]
    if named and most in (None, 1):
        return [Hit(named[0], 0.0, 1.0)]
    hits = handbook().search(question, most or 3)
    if not answers(hits):
        near = ", ".join(hit.entry.id for hit in hits if hit.certainty >= _NEAR)
        raise LocalLLMError(
            f"The handbook has nothing on {question!r}.",
            f"{f'Nearest: {near}. ' if near else ''}`localllm help` lists all topics.",
        )
    return hits if most else [hit for hit in hits if hit.points >= _CLOSE * hits[0].points]


def _facts(hit: Hit) -> dict[str, object]:
    entry = hit.entry
    return {
        "id": entry.id, "kind": entry.kind, "title": entry.title, "text": entry.body, "see": list(entry.see),
        "certainty": round(hit.certainty, 3),
    }  # fmt: skip


def _topics(as_json: bool) -> None:
    from localllm.handbook.entries import KINDS
    from localllm.handbook.index import listed

    if as_json:
        print_json({kind: {entry.id: entry.title for entry in listed(kind)} for kind in KINDS})
        return
    for kind in KINDS:
        print(f"{kind}:")
        _columns([(entry.id, entry.title) for entry in listed(kind)])
    print("\n`localllm help NAME` prints an entry, `localllm help QUESTION` those that fit best.")


def _columns(rows: Sequence[tuple[str, str]]) -> None:
    for name, title in rows:
        print(f"  {name:26} {title}")


def _drawn(entry: Entry) -> str:
    """An entry as text, the title in bold on a terminal."""
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    body = textwrap.fill(entry.body, _WIDTH, break_on_hyphens=False, break_long_words=False)
    see = f"\nsee also: {', '.join(entry.see)}" if entry.see else ""
    return f"{bold}{entry.title}{plain} ({entry.id}, {entry.kind})\n{body}{see}"
