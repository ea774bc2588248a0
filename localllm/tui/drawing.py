"""Blocks of Markdown as lines of a width, their styles still by name: what a theme makes of them comes last."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from markdown_it.token import Token
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]
from pygments.util import ClassNotFound  # type: ignore[import-untyped]
from textual.content import Content, Span
from textual.highlight import highlight
from textual.style import Style

from localllm.sanitize import sanitize_line
from localllm.tui.blocks import Block
from localllm.tui.tables import table
from localllm.tui.wrapping import breaks

BLOCK_STYLES = ("bullet", "quote", "quote-bar", "rule", "table-line", "table-head", "code", "code-bar")
TEXT_STYLES = ("em", "strong", "s", "code_inline", "h1", "h2", "h3", "h4", "h5", "h6", "code-language", "code-copy")
STYLES = frozenset((*TEXT_STYLES, *BLOCK_STYLES))
"""Names of styles, for whoever paints the lines."""
PASSAGE_LINES = 8
BULLETS = "•▪‣⭑◦"
_INLINE = {"em_open": ".em", "strong_open": ".strong", "s_open": ".s"}
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Line:
    """One line on the screen, at most as wide as asked for."""

    content: Content
    under: str = ""
    """The style of the whole line, to its end."""
    joint: str | None = None
    """What stood between it and the line above, where one line was too long; None where it is a line of its own."""


BLANK = Line(Content(""))


class Drawer:
    """Draws blocks one after the other."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.codes = 0
        """Programs drawn so far; each is copied by its number."""
        self.columns: list[int] = []
        """Widths of those of the last table, for one that goes on with it."""
        self._bullets = 0  # lists with bullets that it is inside of

    def draw(self, block: Block) -> list[Line]:
        """One block, without the space around it."""
        self._block = block
        return self._stack(block.tokens, self.width)

    def _stack(self, tokens: Sequence[Token], width: int, depth: int = 0) -> list[Line]:
        lines: list[Line] = []
        before = ""
        for token, inside in _nodes(tokens):
            if before == token.type == "paragraph_open" or (before in ("fence", "table_open") and depth):
                lines.append(BLANK)
            lines += self._node(token, inside, max(4, width), depth)
            before = token.type
        return lines

    def _node(self, token: Token, inside: Sequence[Token], width: int, depth: int) -> list[Line]:
        kind = token.type
        if kind in ("bullet_list_open", "ordered_list_open"):
            return self._list(token, inside, width, depth)
        if kind == "blockquote_open":
            return [
                _prefixed(line, ("▌ ", ".quote-bar"), "quote") for line in self._stack(inside, width - 2, depth + 1)
            ]
        if kind in ("fence", "code_block"):
            return self._code(token, width, depth)
        if kind == "table_open":
            return self._table(token, inside, width)
        if kind == "hr":
            return [Line(Content.styled("─" * width, ".rule"))]
        if kind == "heading_open":
            return wrapped(inline(inside[0]).stylize(f".{token.tag}"), width) if inside else []
        if kind == "paragraph_open" and inside:
            return wrapped(inline(inside[0]), width)
        return wrapped(Content(token.content), width)

    def _list(self, token: Token, inside: Sequence[Token], width: int, depth: int) -> list[Line]:
        lines: list[Line] = []
        first = int(token.attrs.get("start", 1))
        if not depth and self._block.number:
            first = self._block.number
        ordered = token.type == "ordered_list_open"
        bullet = f"{BULLETS[self._bullets % len(BULLETS)]} "
        self._bullets += not ordered
        for number, (_, item) in enumerate(_nodes(inside), first):
            mark = f"{number}. ".rjust(4) if ordered else bullet
            body = self._stack(item, width - len(mark), depth + 1) or [BLANK]
            lines.append(_prefixed(body[0], (mark, ".bullet")))
            lines += [_prefixed(line, (" " * len(mark), "")) for line in body[1:]]
        self._bullets -= not ordered
        return lines

    def _code(self, token: Token, width: int, depth: int) -> list[Line]:
        continues = self._block.continues and not depth
        lines: list[Line] = []
        if not continues:
            lines.append(_code_bar(token.info, self.codes, width))
            self.codes += 1
        code = token.content.removesuffix("\n") if self._block.goes_on and not depth else token.content.rstrip()
        if not code and continues:
            return []
        for line in _coloured(code.expandtabs(4), token.info):
            lines += [_prefixed(part, (" ", ""), "code") for part in _parts(line, width - 2, anywhere=True)]
        return lines

    def _table(self, token: Token, inside: Sequence[Token], width: int) -> list[Line]:
        rows = [
            [(inline(cell[0]) if cell else Content(""), str(head.attrs.get("style", ""))) for head, cell in _nodes(row)]
            for _, part in _nodes(inside) for _, row in _nodes(part)
        ]  # fmt: skip
        block = self._block
        drawn, self.columns = table(rows, width, self.columns if block.continues else None, ends=not block.goes_on)
        return [Line(line) for line in drawn]


def inline(token: Token) -> Content:
    """The text of a paragraph, with its emphasis."""
    texts: list[str] = []
    spans: list[Span] = []
    begun: list[tuple[int, str]] = []
    at = 0
    for child in token.children or []:
        kind = child.type
        text = {"text": _SPACES.sub(" ", child.content), "hardbreak": "\n", "softbreak": " "}.get(kind, "")
        if kind == "code_inline":
            text = child.content
            spans.append(Span(at, at + len(text), ".code_inline"))
        elif kind in _INLINE:
            begun.append((at, _INLINE[kind]))
        elif kind.endswith("_close") and begun:
            start, style = begun.pop()
            spans.append(Span(start, at, style))
        texts.append(text)
        at += len(text)
    return Content("".join(texts), spans=spans)


def wrapped(content: Content, width: int) -> list[Line]:
    """Each of its lines, in as many as it needs."""
    return [part for line in content.split(allow_blank=True) for part in _parts(line, width)]


def _parts(line: Content, width: int, *, anywhere: bool = False) -> list[Line]:
    offsets = breaks(line.plain, width, anywhere=anywhere)
    if not offsets:
        return [Line(line)]
    parts = line.divide(offsets)
    joints = [None, *(" " if line.plain[at - 1] == " " and not anywhere else "" for at in offsets)]
    return [Line(p if anywhere else p.rstrip(), "", j) for p, j in zip(parts, joints, strict=True)]


def _prefixed(line: Line, prefix: tuple[str, str], under: str = "") -> Line:
    return Line(Content.assemble(prefix, line.content), line.under or under, line.joint)


def _coloured(code: str, info: str) -> list[Content]:
    """The lines of a program."""
    language = _language(info.split(" ")[0])
    return [line for part in _passages(code) for line in _highlighted(part, language)]


def _passages(code: str) -> Iterator[str]:
    """A program in parts that are coloured by themselves, so that what was coloured once stays while it grows."""
    passage: list[str] = []
    for line in code.split("\n"):
        if len(passage) >= PASSAGE_LINES and line[:1].strip() and _outside("\n".join(passage)):
            yield "\n".join(passage)
            passage = []
        passage.append(line)
    yield "\n".join(passage)


def _outside(code: str) -> bool:
    """Whether no string and no comment of several lines is open at its end."""
    even = all(code.count(quote) % 2 == 0 for quote in ('"""', "'''", "`"))
    return even and all(code.count(a) <= code.count(b) for a, b in (("/*", "*/"), ("<!--", "-->"), ("{-", "-}")))


@lru_cache(maxsize=256)
def _highlighted(code: str, language: str) -> list[Content]:
    lines = highlight(code, language=language).split(allow_blank=True)
    return lines + [Content("")] * (code.count("\n") + 1 - len(lines))


@cache
def _language(name: str) -> str:
    """A language that the highlighter knows: to look for one that it does not takes long."""
    try:
        get_lexer_by_name(name)
    except ClassNotFound:
        return "text"
    return name


def _code_bar(info: str, number: int, width: int) -> Line:
    """The language, and what copies the program."""
    language = Content(sanitize_line(info) or "code").truncate(max(1, width - 8), ellipsis=True)
    space = " " * max(1, width - 6 - language.cell_length)
    copy = Style.from_meta({"@click": f"copy_code({number})"})
    bar = Content.assemble(" ", language.stylize(".code-language"), space, Content.styled("copy", ".code-copy"))
    return Line(bar.stylize(copy, len(bar) - 4), "code-bar")


def _nodes(tokens: Sequence[Token]) -> Iterator[tuple[Token, Sequence[Token]]]:
    """The outermost tokens, each with those inside of it."""
    at = 0
    while at < len(tokens):
        token, end = tokens[at], at
        if token.nesting == 1:
            end = next(
                i for i in range(at + 1, len(tokens)) if tokens[i].level == token.level and tokens[i].nesting < 0
            )
        yield token, tokens[at + 1 : end]
        at = end + 1
