"""A reply's Markdown in blocks, as it comes in: what is over is read once and stays, only the rest is read again.

A block is over when whole lines show that the next has begun. One that does not end (a program of a thousand lines, a
paragraph without a break, a long table or list) is cut, and what follows goes on with it. Both depend on the text
before alone, so that the blocks are the same however the text was cut into pieces, also into one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from localllm.tui.markdown import reply_parser

WINDOW = 2000
"""Characters that are read at once of a long text."""
PARAGRAPH, LOOK_AHEAD = 1200, 600
"""Characters after which a paragraph is cut, at the best place among the next so many."""
CODE_LINES, CODE_LOOK_AHEAD = 32, 16
LIST, QUOTE, ROWS = 600, 1000, 24
_LETTER = r"(?=[^\W\d_])"  # nothing that begins with a letter is read as another block
_BREAKS = [re.compile(p + _LETTER) for p in (r"\n", r"[.!?:;…] ", r"[。\uff01\uff1f\uff1b]", " ", "")]


@dataclass(frozen=True)
class Block:
    """Something at the top level: a paragraph, a list, a program."""

    tokens: list[Token]
    continues: bool = False
    """It goes on with the block before."""
    number: int = 0
    """Of the first item, where a list goes on."""
    goes_on: bool = False
    """The next block goes on with this one."""


@dataclass(frozen=True)
class _Rest:
    """Text that is not over, and how to read it."""

    text: str = ""
    opening: str = ""
    """Lines of the block that it goes on with, without which it would be read otherwise."""
    continues: bool = False
    number: int = 0


class Splitter:
    """Takes text in pieces."""

    def __init__(self) -> None:
        self._rest = _Rest()
        self._tried = 0  # how much of the rest was read in vain

    def feed(self, text: str) -> list[Block]:
        """Append; the blocks that are over now."""
        self._rest = _Rest(self._rest.text + text, self._rest.opening, self._rest.continues, self._rest.number)
        found: list[Block] = []
        while blocks := self._take():
            found += blocks
        return found

    @property
    def open(self) -> list[Block]:
        """What the rest is as far as it goes."""
        if not self._rest.text.strip():
            return []
        tokens = _parser().parse(self._rest.opening + self._rest.text)
        starts = _tops(tokens)
        return [self._block(tokens, starts, at) for at in range(len(starts))]

    def _take(self) -> list[Block]:
        """Some blocks that are over, if there are any, taken from the rest."""
        size = WINDOW
        while True:
            end = _readable(self._rest.text, size)
            if end <= self._tried:
                if size >= len(self._rest.text):
                    return []
            elif blocks := self._read(end):
                self._tried = 0
                return blocks
            else:
                self._tried = end
            size *= 2

    def _read(self, end: int) -> list[Block]:
        opening = self._rest.opening
        text, after = opening + self._rest.text[:end], self._rest.text[end:]
        tokens, lines = _parser().parse(text), text.split("\n")
        lines = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
        starts, found = _tops(tokens), []
        for at, start in enumerate(starts):
            first, last = _lines(tokens[start])
            number = self._rest.number if at == 0 else 0
            if (cut := _cut(tokens[start:], lines[first:last], number)) is not None:
                tokens = _parser().parse(cut.head)
                found.append(Block(tokens, at == 0 and self._rest.continues, number, True))
                rest = "".join([cut.tail, *lines[last:], after])
                self._rest = _Rest(rest, cut.opening, True, cut.number)
                return found
            if at == len(starts) - 1:
                break
            found.append(self._block(tokens, starts, at))
        if found:
            first, _ = _lines(tokens[starts[-1]])
            self._rest = _Rest("".join(lines[first:]) + after)
        return found

    def _block(self, tokens: list[Token], starts: list[int], at: int) -> Block:
        end = starts[at + 1] if at + 1 < len(starts) else len(tokens)
        first = at == 0
        return Block(tokens[starts[at] : end], first and self._rest.continues, self._rest.number if first else 0)


def blocks(text: str) -> list[Block]:
    """Those of a whole text."""
    splitter = Splitter()
    return splitter.feed(text) + splitter.open


@cache
def _parser() -> MarkdownIt:
    return reply_parser()


def _tops(tokens: list[Token]) -> list[int]:
    return [i for i, token in enumerate(tokens) if token.level == 0 and token.nesting >= 0 and token.map]


def _lines(token: Token) -> tuple[int, int]:
    assert token.map is not None
    return token.map[0], token.map[1]


def _readable(text: str, size: int) -> int:
    """The end of what can be judged: whole lines, and a line so long that it can only be text."""
    end = text.rfind("\n", 0, size) + 1
    reached = min(size, len(text))
    return reached if reached - end >= PARAGRAPH + LOOK_AHEAD else end


# Blocks that do not end


@dataclass(frozen=True)
class _Cut:
    head: str
    tail: str
    opening: str = ""
    number: int = 0


def _cut(tokens: list[Token], lines: list[str], number: int) -> _Cut | None:
    """Cut the block that the tokens begin with, if it is too long; `lines` are its own."""
    kind = tokens[0].type
    if kind == "paragraph_open":
        return _cut_paragraph("".join(lines))
    if kind == "fence":
        return _cut_code(tokens[0], lines)
    if kind in ("bullet_list_open", "ordered_list_open"):
        return _cut_list(tokens, lines, number)
    if kind == "table_open":
        return _cut_at(lines, ROWS + 2, opening="".join(lines[:2])) if len(lines) > ROWS + 2 else None
    if kind == "blockquote_open":
        return _cut_quote(lines)
    return None


def _cut_at(lines: list[str], at: int, opening: str = "", number: int = 0) -> _Cut:
    return _Cut("".join(lines[:at]), "".join(lines[at:]), opening, number)


def _cut_paragraph(text: str) -> _Cut | None:
    """At the end of a line or a sentence, rather where no emphasis and no code is open."""
    end = PARAGRAPH + LOOK_AHEAD
    if len(text) < end:
        return None
    places = [m.end() for p in _BREAKS for m in p.finditer(text, PARAGRAPH, end) if m.end() < end]
    if not places:
        return None
    at = next((place for place in places if _closed(text[:place])), places[0])
    return _Cut(text[:at], text[at:])


def _closed(text: str) -> bool:
    return text.count("`") % 2 == 0 and text.count("**") % 2 == 0 and text.count("[") <= text.count("]")


def _cut_code(fence: Token, lines: list[str]) -> _Cut | None:
    """Where something begins in the first column, rather after an empty line."""
    end = lines[-1].strip()
    closed = len(lines) > 1 and end.startswith(fence.markup) and not end.strip(fence.markup[0])
    code = lines[1:-1] if closed else lines[1:]
    if len(code) < CODE_LINES + CODE_LOOK_AHEAD:
        return None
    begins = [i for i in range(CODE_LINES, CODE_LINES + CODE_LOOK_AHEAD) if not code[i][:1].isspace()]
    at = next((i for i in begins if not code[i - 1].strip()), (begins or [CODE_LINES])[0])
    cut = _cut_at(lines, at + 1, opening=lines[0])
    return _Cut(cut.head + fence.markup + "\n", cut.tail, cut.opening)


def _cut_list(tokens: list[Token], lines: list[str], number: int) -> _Cut | None:
    """Before an item."""
    size, counted, first = 0, 0, _lines(tokens[0])[0]
    for item, token in enumerate(t for t in _inside(tokens) if t.type == "list_item_open" and t.level == 1):
        start = _lines(token)[0] - first
        size, counted = size + sum(map(len, lines[counted:start])), start
        if size >= LIST:
            ordered = tokens[0].type == "ordered_list_open"
            begun = number or int(tokens[0].attrs.get("start", 1))
            return _cut_at(lines, start, number=begun + item if ordered else 0)
    return None


def _inside(tokens: list[Token]) -> list[Token]:
    end = next((i for i, token in enumerate(tokens) if token.level == 0 and token.nesting < 0), len(tokens))
    return tokens[:end]


def _cut_quote(lines: list[str]) -> _Cut | None:
    """After an empty line of it; if there is none for long, after any."""
    size = 0
    for at, line in enumerate(lines):
        empty = at > 0 and lines[at - 1].strip() == ">"
        if line.startswith(">") and ((size >= QUOTE and empty) or size >= 3 * QUOTE):
            return _cut_at(lines, at)
        size += len(line)
    return None
