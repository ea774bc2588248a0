"""Exact match: the share of rows whose answer is, word for word, the one in the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answered:
    """One row answered."""

    line: int
    expected: str
    answer: str

    @property
    def exact(self) -> bool:
        """Whether the answer is the expected one, spaces at both ends aside."""
        return self.answer.strip() == self.expected.strip()


def exact_match(answered: Sequence[Answered]) -> float:
    """Between 0 and 1; 0 for no rows."""
    return sum(a.exact for a in answered) / len(answered) if answered else 0.0
