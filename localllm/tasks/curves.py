"""Loss curves as inline SVG, from the events of a run; colours and fonts come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 34
_MOST_POINTS = 240
LOG_RATIO = 20
"""Losses further apart than this are drawn on a logarithmic scale."""

Points = Sequence[tuple[float, float]]


def points(events: Sequence[Mapping[str, Any]], event: str) -> list[tuple[float, float]]:
    """(step, loss) of the events of that name whose loss is a positive number."""
    pairs = [(e.get("step"), e.get("loss")) for e in events if e.get("event") == event]
    found = [(float(s), float(v)) for s, v in pairs if isinstance(s, int | float) and isinstance(v, int | float)]
    return [(s, v) for s, v in found if math.isfinite(s) and math.isfinite(v) and v > 0]


def loss_svg(train: Points, validation: Points) -> Markup:
    """Both curves over steps; empty where there is nothing to draw."""
    everything = [*train, *validation]
    if len(everything) < 2:
        return Markup("")
    last = max(step for step, _ in everything) or 1.0
    ticks, log = _ticks(min(v for _, v in everything), max(v for _, v in everything))
    low, high = ticks[0], ticks[-1]

    def x(step: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * step / last

    def y(loss: float) -> float:
        part = math.log(loss / low) / math.log(high / low) if log else (loss - low) / (high - low)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * part

    shown = ticks if len(ticks) <= 8 else [t for t in ticks if f"{t:e}"[0] == "1"] or ticks[::2]
    parts = [_grid(shown, y), _steps(last, x), _axis(log), _line("train", _thinned(train), x, y)]
    parts.append(_line("validation", validation, x, y))
    parts += [f'<circle class="validation" cx="{x(s):.1f}" cy="{y(v):.1f}" r="3.5"/>' for s, v in validation]
    title = "<title>Loss of training and validation by step</title>"
    return Markup(f'<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}">{title}{"".join(parts)}</svg>')  # numbers alone


def _grid(ticks: Sequence[float], y: Callable[[float], float]) -> str:
    return "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text x="{_LEFT - 6}" y="{y(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in ticks
    )


def _steps(last: float, x: Callable[[float], float]) -> str:
    whole = [t for t in _linear(0, last) if t <= last and t == int(t)]
    labels = "".join(f'<text x="{x(t):.1f}" y="{HEIGHT - 16}" text-anchor="middle">{t:g}</text>' for t in whole)
    return f'{labels}<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 2}" text-anchor="end">step</text>'


def _axis(log: bool) -> str:
    return f'<text x="4" y="{HEIGHT - 2}">loss, {"logarithmic scale" if log else "nats a token"}</text>'


def _line(kind: str, line: Points, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    if len(line) < 2:
        return ""
    return f'<polyline class="{kind}" points="{" ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in line)}"/>'


def _thinned(line: Points) -> Points:
    """Means of as many neighbours as leave a number of points that can be seen."""
    size = -(-len(line) // _MOST_POINTS)
    if size <= 1:
        return line
    groups = [line[i : i + size] for i in range(0, len(line), size)]
    return [(sum(s for s, _ in g) / len(g), sum(v for _, v in g) / len(g)) for g in groups]


def _ticks(low: float, high: float) -> tuple[list[float], bool]:
    """Round values from below the lowest to above the highest loss, and whether they are for a logarithmic scale."""
    if high / low <= LOG_RATIO:
        return _linear(0, high), False
    steps = [float(f"{m}e{e}") for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
             for m in (1, 2, 5)]  # fmt: skip
    first = max(i for i, t in enumerate(steps) if t <= low)
    last = min(i for i, t in enumerate(steps) if t >= high)
    return steps[first : last + 1], True


def _linear(low: float, high: float) -> list[float]:
    """Four to eight round values from `low` to at least `high`, which is greater."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [round(low + i * step, 12) for i in range(math.ceil((high - low) / step - 1e-9) + 1)]
