"""The search over the handbook: an FTS5 index in memory, made in a few milliseconds when it is first asked.

Each word of a question that has a topic is looked up by itself. An entry's points are the sum of its words' BM25 over
weighted columns, and of how much its written questions are like the one asked. How sure a hit is depends mainly on how
much of the question, by the rarity of its words, it holds, and on whether people who ask about the program speak so.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain, pairwise

from localllm.handbook import terms, topic
from localllm.handbook.asked import asked
from localllm.handbook.certainty import FOUND, Evidence, certainty
from localllm.handbook.entries import Entry, Kind, entries
from localllm.handbook.matching import Questions
from localllm.handbook.spelling import nearest

COLUMNS = ("title", "words", "says", "body")
WEIGHTS = (6.0, 5.0, 3.0, 1.0)
"""Of a word in each column."""
STRONG = "{title words says}"
BODY = 0.5
"""How far a word counts as held that stands in the body alone."""
STANDS = 1.5
"""Points of a word, times its rarity, that stands in a title, in what people say or in a message."""
WHOLE = 1.0
"""The same for each word of a title or phrase that stands in the question as a whole."""
NAMED = 6.0
"""Points of an entry whose title or id is all that the question is about; less where that is a part of it."""
TURNS, TURNS_OF = 0.7, (2, 3)
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
ALIKE = 0.6
"""How much an entry's written questions add that are like the one asked."""


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
    """How sure it is that the entry is about the question, between 0 and 1."""


@dataclass(frozen=True)
class _Term:
    text: str
    weight: float
    """Below 1 where the word was found by its spelling, 0 where it was not found."""
    rarity: float
    bm25: dict[int, float]
    strong: frozenset[int]
    ordinary: bool


class Index:
    """Over some entries, and questions written for them, by the entry's id."""

    def __init__(
        self,
        given: Sequence[Entry],
        written: Mapping[str, Sequence[str]] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._entries = tuple(given)
        self._topic = weights or {}
        pairs = ((n, q) for n, entry in enumerate(given) for q in (written or {}).get(entry.id, ()))
        self._questions = Questions(pairs)
        self._names = [_names(entry) for entry in given]
        self._phrases: dict[int, frozenset[frozenset[str]]] = {}
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
        return [
            Hit(self._entries[number], points, certainty(seen)) for number, points, seen in self.seen(question, most)
        ]

    def seen(self, question: str, most: int) -> list[tuple[int, float, Evidence]]:
        """The best entries by number, with their points and what speaks for them."""
        looked = [self._look(word) for word in terms.asked(question)]
        turns = {length: self._turns(question, length) for length in TURNS_OF}
        points = self._points(looked, chain.from_iterable(turns.values()))
        for number, alike in self._questions.points([term.text for term in looked if term.weight]).items():
            points[number] += ALIKE * alike
        rarity = {terms.stem(term.text): term.rarity for term in looked}
        wanted = _kinds(question)
        whole = {number: self._whole(number, rarity) for number, _ in _best(points, CLOSER)}
        for number, held in whole.items():
            points[number] += WHOLE * held + KIND * (self._entries[number].kind in wanted)
        about = frozenset(rarity)
        for number, names in enumerate(self._names):
            if share := max((len(name) / len(about) for name in names if name <= about), default=0.0):
                points[number] += NAMED * share
        best, wording = _best(points, max(most, 2)), _about(question, looked) | self._spoken(question)
        found = []
        for number, score in best[:most]:
            rival = next((other for n, other in best if n != number), 0.0)
            margin = (score - rival) / max(score, rival)
            more = {"points": math.log1p(score), "margin": margin, "whole": math.log1p(whole.get(number, 0.0))}
            said = sum(number in entries for entries in turns[3]) / (len(turns[3]) or 1)
            found.append((number, score, Evidence(said=said, **more, **_held(number, looked), **wording)))
        return found

    def _spoken(self, question: str) -> dict[str, float]:
        words, pairs = topic.evidence(question, self._topic)
        return {"topic": words, "turns": pairs}

    def _points(self, looked: Sequence[_Term], turns: Iterable[set[int]]) -> defaultdict[int, float]:
        """Of each entry, for the words, for neighbours among them and for turns of phrase."""
        points: defaultdict[int, float] = defaultdict(float)
        for term in looked:
            for number, score in term.bm25.items():
                points[number] += term.weight * (score + STANDS * term.rarity * (number in term.strong))
        for first, second in pairwise(looked):
            for number, score in self._scores(f'"{first.text} {second.text}"').items():
                points[number] += PHRASE * score
        for found in turns:
            for number in found:
                points[number] += TURNS * math.log(1 + len(self._entries) / (1 + len(found)))
        return points

    def _turns(self, question: str, length: int) -> list[set[int]]:
        """For each turn of phrase of so many words, the entries of which people speak in it."""
        words = terms.words_of(question)
        turns = {" ".join(words[i : i + length]) for i in range(len(words) - length + 1)}
        return [set(self._scores(f'{STRONG} : "{turn}"')) for turn in sorted(turns)]

    def _whole(self, number: int, rarity: dict[str, float]) -> float:
        """The most that a title or phrase of an entry holds of the question, if all of it stands there."""
        asked = set(rarity)
        if number not in self._phrases:
            entry = self._entries[number]
            phrases = (frozenset(map(terms.stem, terms.asked(phrase))) for phrase in (entry.title, *entry.words))
            self._phrases[number] = frozenset(phrases)
        return max((sum(rarity[w] for w in phrase) for phrase in self._phrases[number] if phrase <= asked), default=0.0)

    def _look(self, word: str) -> _Term:
        """A word in the index, as it is or as it should be written."""
        known, weight, scores = terms.language(), 1.0, self._scores(f'"{word}"')
        ordinary = terms.stem(word) in known.ordinary
        may_be_misspelt = not scores and not ordinary and terms.stem(word) not in known.elsewhere
        if may_be_misspelt and (meant := nearest(word, self._known)):
            ordinary = meant in known.stop or terms.stem(meant) in known.ordinary
            word = next(iter(terms.asked(meant)), meant)
            weight, scores = MISSPELT, self._scores(f'"{word}"')
        if not scores:
            return _Term(word, 0.0, NUMBER if word.isdigit() else UNKNOWN, {}, frozenset(), ordinary)
        strong = frozenset(self._scores(f'{STRONG} : "{word}"'))
        rarity = math.log(1 + len(self._entries) / (1 + len(strong)))
        return _Term(word, weight, rarity, scores, strong, ordinary)

    def _scores(self, match: str) -> dict[int, float]:
        weights = ", ".join(map(str, WEIGHTS))
        rows = self._db.execute(f"SELECT rowid, -bm25(book, {weights}) FROM book WHERE book MATCH ?", (match,))
        return dict(rows)


@cache
def handbook() -> Index:
    """The index over all entries."""
    return of_all()


def of_all() -> Index:
    """A new one over all entries and their questions."""
    written = {name: [question for _, question in pairs] for name, pairs in asked().items()}
    return Index(entries(), written, topic.weights())


def _best(points: Mapping[int, float], most: int) -> list[tuple[int, float]]:
    return sorted(points.items(), key=lambda pair: (-pair[1], pair[0]))[:most]


def _names(entry: Entry) -> frozenset[frozenset[str]]:
    """The words of its title and of its id; an error's are those of what went wrong, so they name nothing."""
    if entry.kind == "error":
        return frozenset()
    words = (frozenset(map(terms.stem, terms.asked(name))) for name in (entry.title, entry.id))
    return frozenset(name for name in words if name)


def _kinds(question: str) -> tuple[Kind, ...]:
    """Kinds of entries that a question asks for by its wording."""
    for pattern, kinds in _CUES:
        if pattern.search(question.lower()):
            return kinds
    return ()


def _held(number: int, looked: Sequence[_Term]) -> dict[str, float]:
    """How much of the question, by the rarity of its words, an entry holds and what it does not."""
    held = ordinary = missed = 0.0
    for term in looked:
        if number not in term.bm25:
            missed += term.rarity * (not term.ordinary and bool(term.bm25))
        elif term.ordinary:
            ordinary += term.weight * term.rarity * (1.0 if number in term.strong else BODY)
        else:
            held += term.weight * term.rarity * (1.0 if number in term.strong else BODY)
    whole = sum(term.rarity for term in looked if not term.ordinary)
    amounts = {"mass": held, "ordinary": ordinary, "missed": missed}
    return {"held": held / (whole or 1.0)} | {name: math.log1p(amount) for name, amount in amounts.items()}


def _about(question: str, looked: Sequence[_Term]) -> dict[str, float]:
    """What the wording says of whether the question is about this program, whatever the entry."""
    return {
        "unknown": min(3, sum(not term.bm25 and not term.ordinary and not term.text.isdigit() for term in looked)),
        "elsewhere": min(3, sum(terms.stem(term.text) in terms.language().elsewhere for term in looked)),
        "misspelt": min(2, sum(0 < term.weight < 1 and not term.ordinary for term in looked)),
        "topical": min(3, sum(term.text in terms.language().topic for term in looked)),
        "length": math.log1p(len(terms.words_of(question))),
        "this": float(bool(_THIS.search(question.lower()))),
    }


def answers(hits: Sequence[Hit]) -> bool:
    """Whether the best of them is about the question at all."""
    return bool(hits) and hits[0].certainty >= FOUND


def listed(kind: Kind) -> list[Entry]:
    """The entries of one kind, in the order of the handbook."""
    return [entry for entry in entries() if entry.kind == kind]
