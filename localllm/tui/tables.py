"""Tables: columns as wide as their cells, or narrower where there is no room."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from localllm.tui.wrapping import breaks

Cell = tuple[Content, str]
"""The text, and its alignment as CSS."""
_LINE = ".table-line"


def table(
    rows: Sequence[Sequence[Cell]], width: int, columns: list[int] | None = None, *, ends: bool = True
) -> tuple[list[Content], list[int]]:
    """The lines, and the widths of the columns. `rows` begin with the head.

    With `columns`, those of a table that it goes on with, the head is left out; it `ends` with a line below.
    """
    continues = columns is not None
    if columns is None:
        columns = _widths([[content.cell_length for content, _ in row] for row in rows], width)
    cells = [[_cell(cell, w) for cell, w in zip(row, columns, strict=False)] for row in rows]
    tall = any(len(cell) > 1 for row in cells[1:] for cell in row)
    lines: list[Content] = [] if continues else [_rule(columns, "┌┬┐")]
    for at, row in enumerate(cells):
        if at == 0:
            if continues:
                continue
            row = [[line.stylize(".table-head") for line in cell] for cell in row]
        elif (at == 1 and not continues) or (tall and (at > 1 or continues)):
            lines.append(_rule(columns, "├┼┤"))
        lines += _row(row, columns)
    if ends and (not continues or len(rows) > 1):
        lines.append(_rule(columns, "└┴┘"))
    return lines, columns


def _widths(lengths: list[list[int]], width: int) -> list[int]:
    """As wide as the widest cell; the widest column gives way first."""
    widths = [max(1, *column) for column in zip(*lengths, strict=False)]
    room = width - 3 * len(widths) - 1
    while sum(widths) > room and max(widths, default=1) > 1:
        widest = max(widths)
        over, shares = sum(widths) - room, widths.count(widest)
        lower = max([w for w in widths if w < widest], default=1)
        new = max(lower, widest - -(-over // shares), 1)
        widths = [new if w == widest else w for w in widths]
    return widths


def _cell(cell: Cell, width: int) -> list[Content]:
    """Its lines, each as wide as the column."""
    content, align = cell
    lines: list[Content] = []
    for part in content.divide(breaks(content.plain, width)):
        line = part.rstrip()
        space = max(0, width - line.cell_length)
        left = space if "right" in align else space // 2 if "center" in align else 0
        lines.append(line.pad(left, space - left))
    return lines


def _row(cells: list[list[Content]], columns: list[int]) -> list[Content]:
    lines: list[Content] = []
    for at in range(max(map(len, cells), default=0)):
        parts: list[Content | tuple[str, str]] = [("│ ", _LINE)]
        for number, (cell, width) in enumerate(zip(cells, columns, strict=False)):
            last = number == len(columns) - 1
            parts += [cell[at] if at < len(cell) else Content(" " * width), (" │" if last else " │ ", _LINE)]
        lines.append(Content.assemble(*parts))
    return lines


def _rule(columns: list[int], corners: str) -> Content:
    left, middle, right = tuple(corners)
    return Content.styled(left + middle.join("─" * (width + 2) for width in columns) + right, _LINE)
