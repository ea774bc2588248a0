"""ROUGE-1, ROUGE-2 and ROUGE-L as F1, after Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004).

Words are lower-case runs of letters and digits, unstemmed, which on English text gives the numbers of the package
rouge-score. Other scripts count too; where words are written without spaces (Chinese, Japanese), each character is one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_SINGLE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_SINGLE}]|(?:(?![{_SINGLE}])[^\\W_])+")


@dataclass(frozen=True)
class Rouge:
    """F1 values, between 0 and 1."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - its name everywhere


def rouge(expected: str, answer: str) -> Rouge:
    """How much of the words, word pairs and order of words of `expected` the answer has, and it of the answer's."""
    target, found = words(expected), words(answer)
    return Rouge(
        _overlap(target, found, 1),
        _overlap(target, found, 2),
        _f1(longest_common(target, found), len(target), len(found)),
    )


def words(text: str) -> list[str]:
    """The words that are compared."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


def _overlap(target: Sequence[str], found: Sequence[str], n: int) -> float:
    """F1 of the n-grams that both have, each as often as in the one that has it less."""
    a, b = (Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (target, found))
    return _f1((a & b).total(), a.total(), b.total())


def _f1(both: int, target: int, found: int) -> float:
    """2PR / (P + R) with precision both/found and recall both/target."""
    return 2 * both / (target + found) if both else 0.0


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, with a row of the table as one integer (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    every = row = (1 << len(a)) - 1
    for word in b:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & every
    return len(a) - row.bit_count()
