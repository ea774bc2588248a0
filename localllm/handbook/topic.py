"""Whether words are those of people who ask about this program, or about anything else.

Naive Bayes: each word, by its stem, and each pair of neighbours has the logarithm of how much more often it stands in
the one kind of question than in the other. `topic.txt` holds them; `scripts/handbook_fit.py` makes it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

from localllm.handbook import terms

FILE = Path(__file__).with_name("topic.txt")
SEEN = 2
"""Questions in which a word must stand to count."""
UNSEEN = 0.5
"""What is added to each count, so that none is 0."""


def features(question: str) -> list[str]:
    """The stems of a question's words and of its pairs of neighbours, none twice."""
    stems = list(map(terms.stem, terms.words_of(question)))
    return list(dict.fromkeys([*stems, *(f"{a}_{b}" for a, b in pairwise(stems))]))


def log_odds(about: Iterable[str], other: Iterable[str]) -> dict[str, float]:
    """For each feature of both kinds of questions that stands in at least `SEEN`: the logarithm of the odds."""
    counts: list[Counter[str]] = [Counter(), Counter()]
    questions = [0, 0]
    for kind, asked in enumerate((about, other)):
        for question in asked:
            counts[kind].update(features(question))
            questions[kind] += 1
    shared = math.log((questions[1] + 1) / (questions[0] + 1))
    return {
        name: math.log((counts[0][name] + UNSEEN) / (counts[1][name] + UNSEEN)) + shared
        for name in sorted(counts[0] | counts[1])
        if counts[0][name] + counts[1][name] >= SEEN
    }


def evidence(question: str, weights: Mapping[str, float]) -> tuple[float, float]:
    """What the words say, and what the pairs of neighbours say; 0 where none is known."""
    words = pairs = 0.0
    for name in features(question):
        if "_" in name:
            pairs += weights.get(name, 0.0)
        else:
            words += weights.get(name, 0.0)
    return words, pairs


@cache
def weights() -> dict[str, float]:
    """From the file: a line for each feature."""
    lines = FILE.read_text("utf-8").splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}
