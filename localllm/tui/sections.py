"""A long reply in sections: each is parsed and laid out by itself, so that a token costs the same at its end.

A section is cut before the last block that may still grow. One block that alone is too long (a list, a program of a
thousand lines, a paragraph without end) is cut inside, and what follows begins as it has to: with the fence again, or
with the next item.
"""

from __future__ import annotations

from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

SECTION_CHARACTERS = 3000
"""From which on a section is cut when it can be."""
_PARSER = MarkdownIt("gfm-like", {"html": False, "linkify": False})


@dataclass(frozen=True)
class Cut:
    """Where a section ends: `rest` begins the next one."""

    section: str
    rest: str
    continues_code: bool = False
    """The rest goes on with the code block that the section ends with."""


def cut(text: str) -> Cut | None:
    """Cut the text of a section that has become long; None where it cannot be cut yet."""
    if len(text) < SECTION_CHARACTERS:
        return None
    tokens = _PARSER.parse(text)
    tops = [token for token in tokens if token.level == 0 and token.map and token.nesting >= 0]
    if not tops or tops[-1].map is None:
        return None
    lines = text.splitlines(keepends=True)
    start = tops[-1].map[0]
    if start > 0 and len(tops) > 1:
        return Cut("".join(lines[:start]), "".join(lines[start:]))
    return _inside(tops[-1], tokens, lines)


def sections(text: str) -> list[Cut]:
    """A whole text, cut."""
    found: list[Cut] = []
    while len(text) > 2 * SECTION_CHARACTERS:
        at = text.rfind("\n", 0, 2 * SECTION_CHARACTERS) + 1 or 2 * SECTION_CHARACTERS
        piece = cut(text[:at])
        if piece is None:
            piece = Cut(text[:at], "")
        found.append(piece)
        text = piece.rest + text[at:]
    return [*found, Cut(text, "")]


def _inside(block: Token, tokens: list[Token], lines: list[str]) -> Cut | None:
    if block.type == "fence":
        return _in_code(block, lines)
    if block.type in ("bullet_list_open", "ordered_list_open"):
        items = [t.map[0] for t in tokens if t.type == "list_item_open" and t.level == 1 and t.map]
        if len(items) > 1:
            return Cut("".join(lines[: items[-1]]), "".join(lines[items[-1] :]))
    if block.type == "paragraph_open" and sum(map(len, lines)) >= 2 * SECTION_CHARACTERS:
        text = "".join(lines)
        at = max(text.rfind("\n", 0, -1), text.rfind(" ", 0, -1)) + 1
        return Cut(text[:at], text[at:]) if at > SECTION_CHARACTERS else None
    return None


def _in_code(block: Token, lines: list[str]) -> Cut | None:
    """After the last whole line of a program that goes on."""
    fence = block.markup
    last = lines[-1].strip()
    closed = len(lines) > 1 and last.startswith(fence) and not last.strip(fence[0])
    whole = len(lines) if lines[-1].endswith("\n") else len(lines) - 1
    if closed or whole < 2:
        return None
    opening = f"{fence}{block.info}\n"
    section = "".join(lines[:whole])
    return Cut(section + fence + "\n", opening + "".join(lines[whole:]), continues_code=True)
