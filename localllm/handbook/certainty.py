"""How sure it is that an entry is about a question: a logistic function of what the search saw.

Its coefficients were fitted by `scripts/handbook_fit.py` on questions about the program and on others.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

FOUND = 0.5
"""The certainty from which on the best entry is an answer; below it the handbook has none."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for an entry and against it. Words are those that have a topic; ordinary ones say little."""

    held: float
    """Share of the question's words that are not ordinary, by their rarity, that the entry holds."""
    mass: float
    """The rarity of these, as log(1 + sum)."""
    ordinary: float
    """The same of the ordinary words that it holds."""
    missed: float
    """The same of the words that other entries hold and this one does not."""
    unknown: float
    """Words that are not ordinary and stand nowhere in the handbook; at most 3 count."""
    elsewhere: float
    """Words of other topics, whether the handbook holds them or not; at most 3 count."""
    misspelt: float
    """Words, not ordinary ones, that were found by their spelling; at most 2 count."""
    topical: float
    """Words that are typical of this program; at most 3 count."""
    points: float
    """Of the entry, as log(1 + points)."""
    margin: float
    """How far the points lie above those of the next entry, as a share; below the best for all others."""
    whole: float
    """The rarity of the longest title or phrase that stands in the question as a whole, as log(1 + sum)."""
    said: float
    """Share of the question's turns of three words that stand in the entry's phrases."""
    length: float
    """log(1 + words)."""
    this: float
    """1 where the question says "it" of something that it does not name."""
    topic: float
    """How much its words are those of people who ask about this program; see topic.py."""
    turns: float
    """The same of its pairs of neighbouring words."""


COEFFICIENTS = Evidence(
    held=0.846,
    mass=-0.384,
    ordinary=-0.020,
    missed=-0.315,
    unknown=-2.001,
    elsewhere=-0.451,
    misspelt=-0.611,
    topical=0.361,
    points=1.380,
    margin=0.782,
    whole=0.236,
    said=1.450,
    length=-1.500,
    this=0.493,
    topic=0.577,
    turns=0.358,
)
INTERCEPT = -1.856


def certainty(evidence: Evidence) -> float:
    """Between 0 and 1."""
    score = INTERCEPT + sum(c * x for c, x in zip(astuple(COEFFICIENTS), astuple(evidence), strict=True))
    return 1 / (1 + math.exp(-score))
