"""Loss over steps, drawn with the dots of braille characters: training as a line, validation as diamonds on it.

The two are told apart by their shapes, not by colour alone. Nothing is drawn before there are two losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.widget import Widget

Points = Sequence[tuple[float, float]]
"""(step, loss)"""
MARK = "◆"
LOG_RATIO = 20
"""Losses further apart than this are drawn on a logarithmic scale."""
LEFT = 7
"""Cells of the scale on the left."""
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of a braille character, by row and column."""


@dataclass(frozen=True)
class Scale:
    """Where losses lie between the bottom (0) and the top (1)."""

    low: float
    high: float
    log: bool

    def place(self, loss: float) -> float:
        if self.log:
            return math.log(loss / self.low) / math.log(self.high / self.low)
        return (loss - self.low) / (self.high - self.low)

    def loss(self, place: float) -> float:
        """The loss at a place."""
        if self.log:
            return float(self.low * (self.high / self.low) ** place)
        return self.low + place * (self.high - self.low)


def scale_of(losses: Sequence[float]) -> Scale:
    """From a little below the lowest to the highest of at least one positive loss."""
    low, high = min(losses), max(losses)
    if high / low > LOG_RATIO:
        return Scale(low, high, log=True)
    room = (high - low) * 0.05 or high * 0.1
    return Scale(max(0.0, low - room), high + room, log=False)


def draw(train: Points, validation: Points, steps: int, width: int, height: int) -> list[str]:
    """The lines of the picture, `width` cells each at most; empty where there is nothing to draw or no room for it."""
    train, validation = _drawable(train), _drawable(validation)
    columns, rows = width - LEFT, height - 1
    if len(train) + len(validation) < 2 or columns < 8 or rows < 2:
        return []
    scale = scale_of([loss for _, loss in (*train, *validation)])
    last = max(steps, *(step for step, _ in (*train, *validation)), 1)
    dots = [[0] * columns for _ in range(rows)]

    def column(step: float) -> int:
        return min(2 * columns - 1, int(step / last * 2 * columns))

    def row(loss: float) -> int:
        return min(4 * rows - 1, max(0, round((1 - scale.place(loss)) * (4 * rows - 1))))

    _line(dots, train, column, row)
    lines = [[chr(0x2800 + bits) if bits else " " for bits in line] for line in dots]
    for step, loss in validation:
        lines[row(loss) // 4][column(step) // 2] = MARK
    labels = {at: _label(scale.loss(1 - (at + 0.5) / rows)) for at in {0, rows // 2, rows - 1}}
    drawn = [f"{labels.get(at, ''):>{LEFT - 1}}┤{''.join(line)}" for at, line in enumerate(lines)]
    return [*drawn, _axis(last, columns, log=scale.log)]


def _line(dots: list[list[int]], train: Points, column: Callable[[float], int], row: Callable[[float], int]) -> None:
    """Dots at the mean of each column, with the gaps between neighbours filled."""
    sums: dict[int, list[float]] = {}
    for step, loss in train:
        sums.setdefault(column(step), []).append(loss)
    before: tuple[int, int] | None = None
    for x, losses in sorted(sums.items()):
        y = row(sum(losses) / len(losses))
        x0, y0 = before or (x, y)
        for at in range(max(abs(x - x0), abs(y - y0)) + 1):
            part = at / max(abs(x - x0), abs(y - y0), 1)
            _set(dots, round(x0 + (x - x0) * part), round(y0 + (y - y0) * part))
        before = x, y


def _set(dots: list[list[int]], x: int, y: int) -> None:
    dots[y // 4][x // 2] |= _DOTS[y % 4][x % 2]


def _drawable(points: Points) -> list[tuple[float, float]]:
    return [(step, loss) for step, loss in points if math.isfinite(loss) and loss > 0]


def _label(loss: float) -> str:
    return f"{loss:.{2 if loss >= 0.1 else 4}f}" if loss < 1000 else f"{loss:.0e}"


def _axis(last: float, columns: int, *, log: bool) -> str:
    """0 on the left, the last step on the right, and between them what it is."""
    right = f"{last:.0f}"
    middle = "step, loss on a logarithmic scale" if log else "step"
    middle = middle if len(middle) + len(right) + 4 < columns else "step"
    return f"{'':{LEFT}}0{middle:^{columns - len(right) - 1}}{right}"


class LossCurve(Widget):
    """Give it the curves with `show`; it draws them in the room that it has."""

    def __init__(self) -> None:
        super().__init__()
        self._train: Points = ()
        self._validation: Points = ()
        self._steps = 0

    def show(self, train: Points, validation: Points, steps: int) -> None:
        """Draw these; `steps` are those of the whole run."""
        self._train, self._validation, self._steps = tuple(train), tuple(validation), steps
        self.refresh()

    def render(self) -> Content:
        lines = draw(self._train, self._validation, self._steps, self.size.width, self.size.height)
        if not lines:
            return Content.styled("The curves come with the first steps.", "dim")
        *picture, axis = lines
        drawn = [_styled(line) for line in picture]
        return Content("\n").join([*drawn, Content.styled(axis, "dim")])


def _styled(line: str) -> Content:
    """The scale is muted, diamonds stand out from the line."""
    parts = [(part, "bold $accent" if part == MARK else "$primary") for part in _split(line[LEFT:])]
    return Content.assemble((line[:LEFT], "dim"), *parts)


def _split(line: str) -> list[str]:
    """At each mark."""
    parts = [piece for part in line.split(MARK) for piece in (part, MARK)][:-1]
    return [part for part in parts if part]
