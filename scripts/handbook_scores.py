"""How well the handbook's search finds: the right entry first, among the first three, and what is declined.

    python scripts/handbook_scores.py [--misses] [--development] [--heldout] [--blind]

Questions lie in tests/handbook/questions. Those in heldout.jsonl were put aside when they were written: look at their
shares, not at single ones, while the search is being changed. Those in blind.jsonl were written by somebody who knew
the entries' texts alone, and are for the last look: change nothing because of them. Those in development.jsonl were
written from titles, but by the hand that wrote many of the entries' words: they flatter the order, not the certainty.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localllm.handbook.index import Hit

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = ROOT / "tests" / "handbook" / "questions"
OTHERS = "others"
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Asked:
    """A question and the entries that answer it: any of them will do; none for one about something else."""

    voice: str
    question: str
    entries: tuple[str, ...]


@dataclass(frozen=True)
class Shares:
    """Between 0 and 1."""

    questions: int
    first: float
    """Of the questions about the program: the right entry is the best."""
    three: float
    """It is among the best three."""
    declined: float


def read(name: str) -> list[Asked]:
    """The questions of one file."""
    rows = [json.loads(line) for line in (QUESTIONS / f"{name}.jsonl").read_text("utf-8").splitlines()]
    return [Asked(row.get("voice", name), row["question"], tuple(row["entries"])) for row in rows]


@cache
def best(question: str) -> list[Hit]:
    """The best three entries."""
    from localllm.handbook.index import handbook

    return handbook().search(question)


def shares(asked: Sequence[Asked]) -> Shares:
    """What the search makes of some questions."""
    from localllm.handbook.index import answers

    found = [(row, best(row.question)) for row in asked]
    n = max(1, len(found))
    first = sum(bool(hits) and hits[0].entry.id in row.entries for row, hits in found)
    three = sum(any(hit.entry.id in row.entries for hit in hits) for row, hits in found)
    return Shares(len(found), first / n, three / n, sum(not answers(hits) for _, hits in found) / n)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--misses", action="store_true", help="print what went wrong, but nothing held out")
    parser.add_argument("--development", action="store_true", help="also the shares on questions written from titles")
    parser.add_argument("--heldout", action="store_true", help="also the shares on held-out questions")
    parser.add_argument("--blind", action="store_true", help="also the shares on questions that nothing is tuned on")
    args = parser.parse_args()
    voices = ("newcomer", "expert", "nonnative", OTHERS)
    tuning = {voice: read(voice) for voice in voices}
    print(f"{'questions':28} {'n':>4} {'first':>7} {'in 3':>7} {'declined':>9}")
    for voice, rows in tuning.items():
        _line(voice, rows)
    _line("all three voices", [row for voice, rows in tuning.items() for row in rows if voice != OTHERS])
    for name in ("development", "heldout", "blind"):
        if getattr(args, name):
            _by_voice(name, read(name))
    if args.misses:
        _misses([row for rows in tuning.values() for row in rows])


def _by_voice(name: str, rows: Sequence[Asked]) -> None:
    for voice in dict.fromkeys(row.voice for row in rows):
        _line(f"{name}: {voice}", [row for row in rows if row.voice == voice])
    _line(f"{name}: all voices", [row for row in rows if row.voice != OTHERS])


def _line(name: str, rows: Sequence[Asked]) -> None:
    s = shares(rows)
    found = f"{s.first:>7.1%} {s.three:>7.1%}" if rows[0].entries else f"{'':>7} {'':>7}"
    print(f"{name:28} {s.questions:>4} {found} {s.declined:>9.1%}")


def _misses(rows: Sequence[Asked]) -> None:
    from localllm.handbook.index import answers

    for row in rows:
        hits = best(row.question)
        wrong = not hits or hits[0].entry.id not in row.entries
        if (wrong if row.entries else False) or answers(hits) != bool(row.entries):
            nearest = ", ".join(f"{hit.entry.id} {hit.points:.1f}/{hit.certainty:.2f}" for hit in hits)
            print(f"{'DECLINED' if not answers(hits) else '':9}{row.question}\n{'':9}{row.entries} <- {nearest}")


if __name__ == "__main__":
    main()
