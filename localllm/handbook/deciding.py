"""Which sentences of an entry answer a question.

A conditional logit over the sentences: each has a score, linear in what speaks for it, and their probabilities are the
softmax of the scores. `scripts/handbook_deciding.py` fitted the coefficients on the questions written for the handbook.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import cache

from localllm.handbook import terms, translation
from localllm.handbook.asked import asked
from localllm.handbook.entries import Entry, entries

ENOUGH, MOST = 0.85, 3
"""Sentences are taken, the most probable first, until they hold so much of the probability; at most so many."""
FIRST = 1.0
"""Added to the score of an entry's first sentence, which is written to be the deciding one: questions were written for
all sentences alike, but people mostly ask for what an entry is about."""
UNSEEN, ABSENT = 0.3, 0.2
"""What stands for none in the logarithms of counts."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for a sentence. Words are those that have a topic, weighed by their rarity in the handbook."""

    first: float
    """1 for the first of the entry."""
    shared: float
    """The question's words that stand in it."""
    alone: float
    """Those of them that stand in no other sentence of the entry."""
    share: float
    """The shared ones as a part of the question."""
    likest: float
    """What the likest question written for it shares with the one asked, by the root of its own length."""
    like: float
    """What these questions share with it, on average."""
    usual: float
    """The logarithm of how often they use the question's words, topic or not."""
    holds: float
    """The same of the sentence's own words."""
    length: float
    """The logarithm of its characters."""
    means: float
    """How likely the words are as a translation of the sentence; see translation.py."""


COEFFICIENTS = Evidence(
    first=0.314,
    shared=-0.087,
    alone=0.156,
    share=0.567,
    likest=-0.118,
    like=0.091,
    usual=0.371,
    holds=0.224,
    length=-0.633,
    means=0.379,
)


@dataclass(frozen=True)
class _Sentence:
    """One of an entry, with the questions written for it."""

    topic: frozenset[str]
    said: tuple[str, ...]
    stems: frozenset[str]
    questions: tuple[frozenset[str], ...]
    used: Counter[str]
    length: int


class Book:
    """The sentences of entries and the questions written for them, by the entry's id."""

    def __init__(
        self, given: Sequence[Entry], written: dict[str, Sequence[tuple[int, str]]], table: translation.Table
    ) -> None:
        self._table, self._written = table, written
        self._entries: dict[str, list[_Sentence]] = {}
        texts = [frozenset(translation.words(sentence)) for entry in given for sentence in entry.sentences]
        held = Counter(word for text in texts for word in text)
        self._rarity = {word: math.log(1 + len(texts) / (1 + n)) for word, n in held.items()}
        self._unknown = math.log(1 + len(texts))

    def _of(self, entry: Entry) -> list[_Sentence]:
        if entry.id not in self._entries:
            self._entries[entry.id] = _sentences(entry, self._written.get(entry.id, ()))
        return self._entries[entry.id]

    def evidence(self, question: str, entry: Entry) -> list[Evidence]:
        """Of each sentence."""
        sentences = self._of(entry)
        said = translation.words(question)
        topic, stems = frozenset(said), frozenset(map(terms.stem, terms.words_of(question)))
        known = {stem for stem in stems if any(stem in one.stems or stem in one.used for one in sentences)}
        whole = self._weight(topic) or 1.0
        found = []
        for number, one in enumerate(sentences):
            others = frozenset().union(*(other.topic for other in sentences if other is not one))
            shared = self._weight(topic & one.topic)
            asked_so = [self._weight(topic & question) for question in one.questions]
            roots = [math.sqrt(4 + self._weight(question)) for question in one.questions]
            found.append(
                Evidence(
                    first=float(number == 0),
                    shared=shared,
                    alone=self._weight(topic & one.topic - others),
                    share=shared / whole,
                    likest=max((points / root for points, root in zip(asked_so, roots, strict=True)), default=0.0),
                    like=sum(asked_so) / (len(asked_so) or 1),
                    usual=sum(math.log((one.used[stem] + UNSEEN) / (len(asked_so) + 1)) for stem in known),
                    holds=sum(math.log((stem in one.stems) + ABSENT) for stem in known),
                    length=math.log(one.length),
                    means=translation.likeness(said, one.said, self._table),
                )
            )
        return found

    def probabilities(self, question: str, entry: Entry) -> list[float]:
        """Of each sentence to be the one that answers."""
        weights = astuple(COEFFICIENTS)
        scores = [
            FIRST * one.first + sum(w * x for w, x in zip(weights, astuple(one), strict=True))
            for one in self.evidence(question, entry)
        ]
        most = max(scores)
        shares = [math.exp(score - most) for score in scores]
        return [share / sum(shares) for share in shares]

    def deciding(self, question: str, entry: Entry) -> list[int]:
        """The sentences to answer with, in their order."""
        chances = self.probabilities(question, entry)
        taken: list[int] = []
        for number in sorted(range(len(chances)), key=lambda n: -chances[n])[:MOST]:
            taken.append(number)
            if sum(chances[n] for n in taken) >= ENOUGH:
                break
        return sorted(taken)

    def _weight(self, words: frozenset[str]) -> float:
        return sum(self._rarity.get(word, self._unknown) for word in words)


def _sentences(entry: Entry, written: Sequence[tuple[int, str]]) -> list[_Sentence]:
    found = []
    for number, text in enumerate(entry.sentences):
        questions = [question for at, question in written if at == number]
        used: Counter[str] = Counter()
        for question in questions:
            used.update(frozenset(map(terms.stem, terms.words_of(question))))
        topics = tuple(frozenset(translation.words(question)) for question in questions)
        said = tuple(translation.words(text))
        stems = frozenset(map(terms.stem, terms.words_of(text)))
        found.append(_Sentence(frozenset(said), said, stems, topics, used, len(text)))
    return found


@cache
def book() -> Book:
    """All entries and the questions written for them."""
    return Book(entries(), dict(asked()), translation.shipped())
