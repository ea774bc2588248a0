"""Where the lines of a text break, in a terminal's cells: at spaces, and between characters that are two cells wide."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from rich.cells import cell_len

_NOT_FIRST = frozenset("、。」』】〉》”’…ー々\uff0c\uff0e\uff01\uff1f\uff1b\uff1a\uff09")
"""What does not begin a line in Chinese and Japanese."""


def breaks(text: str, width: int, *, anywhere: bool = False) -> list[int]:
    """Offsets at which new lines begin, without the first; `anywhere` breaks only where a line is full."""
    if len(text) <= width and text.isascii():
        return []
    cells = None if text.isascii() else list(accumulate((cell_len(c) for c in text), initial=0))
    found: list[int] = []
    start, width = 0, max(1, width)
    while True:
        full = start + width if cells is None else bisect_right(cells, cells[start] + width) - 1
        if full >= len(text):
            return found
        full = max(full, start + 1)
        while cells is not None and full < len(text) and cells[full + 1] == cells[full]:
            full += 1  # what has no width stays with what it belongs to
        if full >= len(text):
            return found
        start = full if anywhere else _best(text, start, full, cells)
        found.append(start)


def _best(text: str, start: int, full: int, cells: list[int] | None) -> int:
    """The start of the next line, at most `full`, or after the spaces there."""
    at = text.rfind(" ", start + 1, full + 1)
    if at >= 0 and not text[start:at].strip():
        at = -1  # only indentation
    if cells is not None:
        for place in range(full, max(at, start), -1):
            wide = cells[place] - cells[place - 1] == 2 or cells[place + 1] - cells[place] == 2
            if wide and cells[place + 1] > cells[place] and text[place] not in _NOT_FIRST and text[place] != " ":
                return place
    if at < 0:
        return full
    while at < len(text) and text[at] == " ":
        at += 1
    return at
