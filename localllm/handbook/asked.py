"""Questions that people may ask, each with the sentence of the handbook that answers it, from the files in `asked/`.

A file goes with the file of entries of the same name. For each entry it has a heading with its id and lines
`number: question`, in which the number counts the sentences of the entry's text from 1. The search is told by them how
people put things, and the built-in model was taught with most of them.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "asked"
_ENTRY = re.compile(r"^## ", re.M)


@cache
def asked() -> dict[str, tuple[tuple[int, str], ...]]:
    """For each entry, by its id, pairs of a sentence's index from 0 and a question that it answers.

    Raises ValueError for a line that is not as described.
    """
    found: dict[str, tuple[tuple[int, str], ...]] = {}
    for path in FOLDER.glob("*.txt"):
        for part in _ENTRY.split(path.read_text("utf-8"))[1:]:
            head, *lines = part.split("\n")
            found[head.strip()] = tuple(_pair(line) for line in lines if line)
    return found


def _pair(line: str) -> tuple[int, str]:
    number, _, question = line.partition(": ")
    if not number.isdigit() or number == "0" or not question:
        raise ValueError(f"not `number: question`: {line!r}")
    return int(number) - 1, question
