"""A text as consecutive parts, each within a token budget, cut at the best borders there are.

The text is first taken apart into units (small paragraphs, sentences, words, pieces of words), each counted once. Parts
are packed from a window of units twice the budget long, so that the work is linear and a part can be given out before
the next is looked for. Counts of units do not add up exactly, so every part is counted as it is given out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from localllm.data import borders
from localllm.types import Chunk

CountTokens = Callable[[str], int]

SMALLEST_BUDGET = 8  # tokens; one character can take four
_LONGEST_TOKEN = 16  # characters; a longer stretch than the budget times this is taken apart without counting it
_WRAP = re.compile(r"(?<=[^\n]{40})[ \t]*\n(?=[^\s#>*+|\d`-])")
"""A line end in the middle of wrapped prose: after a long line, and not before a heading, a list or a table."""


def unwrap(text: str) -> str:
    """Wrapped prose with each paragraph on one line, as models read and write it; other line ends stay."""
    return _WRAP.sub(" ", text.replace("\r\n", "\n"))


def split_text(text: str, budget: int, count: CountTokens, overlap: int = 0) -> Iterator[Chunk]:
    """Parts of at most `budget` tokens, in order. Without overlap they are the text, every character once.

    Parts begin at headings where they can, else at paragraphs, sentences, words, and last between characters. With
    `overlap` a part also holds the last sentences of the part before it, up to that many tokens. No part of a longer
    text is tiny: what is left for the last two is shared between them. Raises ValueError for a budget of less than 8
    tokens or an overlap of more than half of it.
    """
    if budget < SMALLEST_BUDGET:
        raise ValueError(f"a budget of {budget} tokens is too small to hold text")
    if not 0 <= overlap <= budget // 2:
        raise ValueError(f"an overlap of {overlap} tokens is not within half of the budget ({budget // 2})")
    return _Splitter(text, budget, count, overlap).parts()


class _Unit(NamedTuple):
    """A stretch of text that ends at `end`, and the kind of border there."""

    end: int
    tokens: int
    border: int


class _Splitter:
    """One text on its way to parts."""

    def __init__(self, text: str, budget: int, count: CountTokens, overlap: int) -> None:
        self._text, self._count, self._overlap = text, count, overlap
        self._budget = budget
        self._room = max(SMALLEST_BUDGET, budget - overlap)
        """Tokens of a part that are not the end of the part before."""
        self._grain = self._room // 8
        """Characters that a unit has at least, so that a text of short lines is not counted word by word."""
        self._ratio = 2.0
        """Characters to a token, as seen last."""

    def parts(self) -> Iterator[Chunk]:
        units, window, tokens = self._units(), deque[_Unit](), 0
        start, more = 0, True
        previous = 0
        while True:
            while more and tokens <= 2 * self._room:
                unit = next(units, None)
                if unit is None:
                    more = False
                else:
                    window.append(unit)
                    tokens += unit.tokens
            if not window:
                return
            chunk, taken = self._part(previous, start, window, tokens, last=not more)
            yield chunk
            previous, start = start, chunk.end
            tokens -= sum(window.popleft().tokens for _ in range(taken))

    def _part(self, previous: int, start: int, window: deque[_Unit], tokens: int, *, last: bool) -> tuple[Chunk, int]:
        """The next part and the units it takes; fewer than planned where they come to more tokens when joined."""
        begin = self._overlap_start(previous, start)
        room = self._room
        while True:
            taken = _choose(window, tokens, room, last=last)
            end = window[taken - 1].end
            piece = self._text[begin:end]
            size = self._count(piece)
            if size <= self._budget:
                return Chunk(begin, end, piece, size), taken
            if taken > 1:
                used = sum(window[i].tokens for i in range(taken))
                room = min(room, used) - min(size - self._budget, max(1, used // 8))
            elif begin < start:
                begin = start
            else:  # a single character
                return Chunk(begin, end, piece, size), taken

    def _overlap_start(self, previous: int, start: int) -> int:
        """Where the repeated end of the part before begins: at a sentence, else at a word, as far back as fits."""
        if not self._overlap or not start:
            return start
        lowest = max(previous, start - self._overlap * _LONGEST_TOKEN)
        ends = [lowest, *borders.sentences(self._text, lowest, start)][:-1]
        fits = start
        for cut in reversed(ends if lowest == previous else ends[1:]):
            if self._count(self._text[cut:start]) > self._overlap:
                break
            fits = cut
        if fits < start:
            return fits
        aim = max(lowest + 1, start - int(self._overlap * self._ratio / 2))
        cut = borders.word_border(self._text, lowest, aim, start)
        return cut if lowest < cut < start and self._count(self._text[cut:start]) <= self._overlap else start

    def _units(self) -> Iterator[_Unit]:
        start = 0
        for end, border in borders.blocks(self._text):
            if end - start < self._grain and border == borders.PARAGRAPH and end < len(self._text):
                continue
            yield from self._block(start, end, border)
            start = end

    def _block(self, start: int, end: int, border: int) -> Iterator[_Unit]:
        """A paragraph as one unit if it is short, else as sentences, else as words."""
        if end - start <= self._ratio * self._room / 3 or end - start <= self._grain:
            tokens = self._counted(start, end)
            if tokens <= max(SMALLEST_BUDGET, self._room // 3):
                yield _Unit(end, tokens, border)
                return
        for cut in borders.sentences(self._text, start, end):
            if cut - start < self._grain and cut < end:
                continue
            yield from self._sentence(start, cut, border if cut == end else borders.SENTENCE)
            start = cut

    def _sentence(self, start: int, end: int, border: int) -> Iterator[_Unit]:
        if end - start <= self._room * _LONGEST_TOKEN:
            tokens = self._counted(start, end)
            if tokens <= self._room:
                yield _Unit(end, tokens, border)
                return
        while start < end:
            unit = self._words(start, end)
            yield unit._replace(border=border) if unit.end == end else unit
            start = unit.end

    def _words(self, start: int, end: int) -> _Unit:
        """As many words as make about a quarter of the room; of one long word, as many characters."""
        size, furthest = max(1, int(self._ratio * self._room / 4)), end
        while True:
            stop = start + size
            cut = end if stop >= end else borders.word_border(self._text, start, stop, furthest)
            tokens = self._counted(start, cut)
            if tokens <= self._room or cut - start == 1:
                return _Unit(cut, tokens, borders.WORD)
            furthest = cut - 1
            size = max(1, min(cut - start - 1, (cut - start) * self._room // (2 * tokens)))

    def _counted(self, start: int, end: int) -> int:
        tokens = self._count(self._text[start:end])
        self._ratio = min(_LONGEST_TOKEN, max(0.25, (end - start) / max(1, tokens)))
        return tokens


def _choose(window: deque[_Unit], tokens: int, room: int, *, last: bool) -> int:
    """How many units to take: up to the best border in the second half of the room, of equal ones the latest.

    `tokens` is their sum. What fits as a whole is taken as a whole; what fits in two parts is cut near the middle.
    """
    if last and tokens <= room:
        return len(window)
    lowest, highest, aim = room / 2, float(room), float(room)
    if last and tokens <= 2 * room:
        lowest, highest, aim = 0.3 * tokens, 0.7 * tokens, tokens / 2
    best, most, used = (-1, 0.0), 0, 0
    chosen = 0
    for i, unit in enumerate(window, 1):
        used += unit.tokens
        if used > room or (i == len(window) and last):
            break
        most = i
        if lowest <= used <= highest and (unit.border, -abs(used - aim)) >= best:
            best, chosen = (unit.border, -abs(used - aim)), i
    return chosen or most or 1
