"""Which words of the handbook people mean by their own: "uploaded" asks for a sentence with "sent".

A statistical translation model from the words of a sentence to those of questions about it: IBM Model 1 (Brown et al.
1993), as used for finding answers by Berger et al. 2000. `translation.txt` holds, for a word asked and a word said, how
many times as probable the one is in a question to a sentence with the other than in any question.
`scripts/handbook_deciding.py` makes it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from localllm.handbook import terms

FILE = Path(__file__).with_name("translation.txt")
ROUNDS = 5
"""Of expectation maximization."""
LIKELY = 0.01
"""Probabilities below are left out."""
DOUBT = 2.0
"""Questions that are added to those in which a word was said, so that rare ones do not seem sure."""
_NOTHING = ""
"""Stands for words that a question has for no word of the sentence."""

Table = Mapping[str, Mapping[str, float]]
"""For a word asked, each word said with its ratio."""


def words(text: str) -> list[str]:
    """The stems of a text's words that have a topic, none twice; synonyms as what stands for them."""
    return list(dict.fromkeys(map(terms.stem, terms.asked(text))))


def learn(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, float]]:
    """The table of pairs of a question and the sentence that answers it."""
    known = [(words(question), [*words(sentence), _NOTHING]) for question, sentence in pairs]
    chance: dict[tuple[str, str], float] | None = None
    for _ in range(ROUNDS):
        chance = _round(known, chance)
    usual = Counter(word for question, _ in known for word in question)
    total = sum(usual.values())
    table: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for (word, said), value in (chance or {}).items():
        if value >= LIKELY and said != _NOTHING:
            table[word][said] = value * total / usual[word]
    return dict(table)


def _round(
    known: Sequence[tuple[list[str], list[str]]], chance: Mapping[tuple[str, str], float] | None
) -> dict[tuple[str, str], float]:
    """One round: for a word asked and a word said, the probability of the one given the other."""
    counts: defaultdict[tuple[str, str], float] = defaultdict(float)
    totals: defaultdict[str, float] = defaultdict(float)
    for question, sentence in known:
        for word in question:
            shares = [1.0 if chance is None else chance.get((word, said), 0.0) for said in sentence]
            whole = sum(shares) or 1.0
            for said, share in zip(sentence, shares, strict=True):
                counts[word, said] += share / whole
                totals[said] += share / whole
    return {pair: count / (totals[pair[1]] + DOUBT) for pair, count in counts.items() if count > LIKELY}


def likeness(asked: Sequence[str], said: Sequence[str], table: Table) -> float:
    """How much likelier the words of a question are to a sentence of these words than to any: a sum of logarithms."""
    points = 0.0
    for word in asked:
        ratios = table.get(word)
        if ratios and said:
            points += math.log1p(sum(ratios.get(other, 0.0) for other in said) / len(said))
    return points


@cache
def shipped() -> Table:
    """The table in the file."""
    table: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for line in FILE.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            word, said, ratio = line.split()
            table[word][said] = float(ratio)
    return dict(table)
