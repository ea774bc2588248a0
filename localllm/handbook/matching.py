"""The questions written for the handbook as an index of their own: which entries were asked something like this."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence

from localllm.handbook import terms

LOOKED_AT = 300
"""Questions, the most alike ones, that are looked at."""
COUNTED, FADING = 4, 0.5
"""Of an entry's questions so many count, each half as much as the one before."""


class Questions:
    """Over pairs of an entry's number and a question that it answers."""

    def __init__(self, given: Iterable[tuple[int, str]]) -> None:
        rows = list(given)
        self._entries = [number for number, _ in rows]
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute("CREATE VIRTUAL TABLE asked USING fts5(question, tokenize = 'porter ascii')")
        texts = ((i, terms.indexed(question)) for i, (_, question) in enumerate(rows))
        self._db.executemany("INSERT INTO asked (rowid, question) VALUES (?, ?)", texts)

    def points(self, words: Sequence[str]) -> dict[int, float]:
        """Of each entry with a question that holds some of the words: its likest ones' BM25."""
        if not words:
            return {}
        match = " OR ".join(f'"{word}"' for word in dict.fromkeys(words))
        rows = self._db.execute(
            "SELECT rowid, -bm25(asked) FROM asked WHERE asked MATCH ? ORDER BY bm25(asked), rowid LIMIT ?",
            (match, LOOKED_AT),
        )
        found: defaultdict[int, list[float]] = defaultdict(list)
        for row, score in rows:
            found[self._entries[row]].append(score)
        return {
            number: sum(score * FADING**i for i, score in enumerate(scores[:COUNTED]))
            for number, scores in found.items()
        }
