"""The search over the handbook: an FTS5 index in memory, made in a few milliseconds when it is first asked.

Each word of a question that has a topic is looked up by itself. An entry's points are the sum of its words' BM25 over
weighted columns; how sure a hit is depends on how much of the question, by the rarity of its words, the entry holds.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

from localllm.handbook import terms
from localllm.handbook.entries import Entry, Kind, entries
from localllm.handbook.spelling import nearest

COLUMNS = ("title", "words", "says", "body")
WEIGHTS = (6.0, 5.0, 3.0, 1.0)
"""Of a word in each column."""
STRONG = "{title words says}"
TOPIC, TOPICS = 0.15, 2
"""What each word that is typical of this program adds to the certainty, and how many of them count."""
THIS = 0.1
"""What it adds that the question says "it" of something that it does not name."""
SAID, ALL_SAID = 0.4, 0.7
"""What it adds that people say so: times the share of the question's turns of phrase, and for all of them."""
BODY = 0.5
"""How far a word counts as held that stands in the body alone."""
STANDS = 1.5
"""Points of a word, times its rarity, that stands in a title, in what people say or in a message."""
WHOLE = 1.0
"""The same for each word of a title or phrase that stands in the question as a whole."""
TURNS = 0.7
"""The same for each two or three words of the question, with a topic or not, that stand so in one of these."""
KIND = 2.0
"""Points of an entry that is of the kind that the question asks for."""
CLOSER = 12
"""How many entries are looked at for that."""
UNKNOWN, NUMBER = 4.0, 1.0
"""Rarity of a word that occurs nowhere, and of a number that does not."""
MISSPELT = 0.75
"""How far a word counts that was found by its spelling."""
PHRASE = 0.6
"""How much two neighbouring words add where they are neighbours in the entry too."""
FOUND = 0.7
"""The certainty from which on the best entry is an answer; below it the handbook has none."""


_CUES: tuple[tuple[re.Pattern[str], tuple[Kind, ...]], ...] = (
    (re.compile(r"\berrors?\b|\brefused|\bfail(s|ed)\b"), ("error",)),
    (re.compile(r"\bit (says|said|complains|tells me|could not|will not|won't)\b"), ("error",)),
    (re.compile(r"\bwhat (is|are|does .* mean|means?)\b|\bexplain|\bmeaning\b|\bdefinition\b|\bwhat's\b"), ("idea",)),
    (re.compile(r"--\w|\b(option|flag|parameter)\b"), ("option",)),
    (re.compile(r"\bhow (do|can|to|should)\b"), ("how-to", "command")),
)
_THIS = re.compile(r"\b(it|he)\b")


@dataclass(frozen=True)
class Hit:
    """An entry for a question."""

    entry: Entry
    points: float
    """For the order only."""
    certainty: float
    """How sure it is that the entry is about the question: mainly the share of it that the entry holds."""


@dataclass(frozen=True)
class _Term:
    text: str
    weight: float
    rarity: float
    bm25: dict[int, float]
    strong: frozenset[int]


class Index:
    """Over some entries."""

    def __init__(self, given: Sequence[Entry]) -> None:
        self._entries = tuple(given)
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(f"CREATE VIRTUAL TABLE book USING fts5({', '.join(COLUMNS)}, tokenize = 'porter ascii')")
        rows = []
        for number, entry in enumerate(self._entries):
            texts = (f"{entry.title} {entry.id}", " . ".join(entry.words), " . ".join(entry.says), entry.body)
            rows.append((number, *(terms.indexed(text) for text in texts)))
        self._db.executemany(f"INSERT INTO book (rowid, {', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?)", rows)

    @cached_property
    def _known(self) -> Counter[str]:
        """Every word of the entries, and in how many of them it stands: what a misspelt word may have been meant as."""
        known: Counter[str] = Counter()
        for entry in self._entries:
            known.update(set(terms.words_of(" ".join((entry.title, *entry.words, *entry.says, entry.body)))))
        return known

    def search(self, question: str, most: int = 3) -> list[Hit]:
        """The best entries, best first. Whether they answer is for `answers` to say."""
        looked = [self._look(word) for word in terms.asked(question)]
        points: defaultdict[int, float] = defaultdict(float)
        for term in looked:
            for number, score in term.bm25.items():
                points[number] += term.weight * (score + STANDS * term.rarity * (number in term.strong))
        for first, second in pairwise(looked):
            for number, score in self._scores(f'"{first.text} {second.text}"').items():
                points[number] += PHRASE * score
        turns = self._turns(question)
        for found in turns:
            for number in found:
                points[number] += TURNS * math.log(1 + len(self._entries) / (1 + len(found)))
        rarity = {terms.stem(term.text): term.rarity for term in looked}
        wanted = _kinds(question)
        for number, _ in _best(points, CLOSER):
            points[number] += WHOLE * self._whole(number, rarity) + KIND * (self._entries[number].kind in wanted)
        about = _about(question, [term.text for term in looked])
        return [
            Hit(self._entries[number], score, about + self._held(number, looked) + self._said(number, question))
            for number, score in _best(points, most)
        ]

    def _turns(self, question: str, lengths: Sequence[int] = (2, 3)) -> list[set[int]]:
        """For each turn of phrase of so many words, the entries of which people speak in it."""
        words = terms.words_of(question)
        turns = {" ".join(words[i : i + n]) for n in lengths for i in range(len(words) - n + 1)}
        return [set(self._scores(f'{STRONG} : "{turn}"')) for turn in sorted(turns)]

    def _said(self, number: int, question: str) -> float:
        found = self._turns(question, (3,))
        share = sum(number in entries for entries in found) / len(found) if found else 0.0
        return ALL_SAID if share == 1 else SAID * share

    def _whole(self, number: int, rarity: dict[str, float]) -> float:
        """The most that a title or phrase of an entry holds of the question, if all of it stands there."""
        asked = set(rarity)
        entry = self._entries[number]
        phrases = (frozenset(map(terms.stem, terms.asked(phrase))) for phrase in (entry.title, *entry.words))
        return max((sum(rarity[w] for w in phrase) for phrase in phrases if phrase <= asked), default=0)

    def _held(self, number: int, looked: Sequence[_Term]) -> float:
        """The share of the question's words, by their rarity, that an entry holds."""
        held = (
            term.weight * term.rarity * (1.0 if number in term.strong else BODY)
            for term in looked
            if number in term.bm25
        )
        return sum(held) / (sum(term.rarity for term in looked) or 1.0)

    def _look(self, word: str) -> _Term:
        """A word in the index, as it is or as it should be written."""
        weight, scores = 1.0, self._scores(f'"{word}"')
        if not scores and (meant := nearest(word, self._known)):
            word = next(iter(terms.asked(meant)), meant)
            weight, scores = MISSPELT, self._scores(f'"{word}"')
        if not scores:
            return _Term(word, 0.0, NUMBER if word.isdigit() else UNKNOWN, {}, frozenset())
        strong = frozenset(self._scores(f'{STRONG} : "{word}"'))
        rarity = math.log(1 + len(self._entries) / (1 + len(strong)))
        return _Term(word, weight, rarity, scores, strong)

    def _scores(self, match: str) -> dict[int, float]:
        weights = ", ".join(map(str, WEIGHTS))
        rows = self._db.execute(f"SELECT rowid, -bm25(book, {weights}) FROM book WHERE book MATCH ?", (match,))
        return dict(rows)


@cache
def handbook() -> Index:
    """The index over all entries."""
    return Index(entries())


def _best(points: Mapping[int, float], most: int) -> list[tuple[int, float]]:
    return sorted(points.items(), key=lambda pair: (-pair[1], pair[0]))[:most]


def _kinds(question: str) -> tuple[Kind, ...]:
    """Kinds of entries that a question asks for by its wording."""
    for pattern, kinds in _CUES:
        if pattern.search(question.lower()):
            return kinds
    return ()


def _about(question: str, words: Sequence[str]) -> float:
    """What the wording adds to the certainty that the question is about this program."""
    topical = sum(word in terms.language().topic for word in words)
    return TOPIC * min(topical, TOPICS) + THIS * bool(_THIS.search(question.lower()))


def answers(hits: Sequence[Hit]) -> bool:
    """Whether the best of them is about the question at all."""
    return bool(hits) and hits[0].certainty >= FOUND


def listed(kind: Kind) -> list[Entry]:
    """The entries of one kind, in the order of the handbook."""
    return [entry for entry in entries() if entry.kind == kind]
