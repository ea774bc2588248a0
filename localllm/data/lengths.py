"""How long rows are in tokens: percentiles and a histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from localllm.types import Example

PERCENTILES = (5, 50, 90, 95, 99, 100)
_BARS = 10


@dataclass(frozen=True)
class Lengths:
    """Token counts of examples."""

    total: dict[str, int]
    """p5, p50, p90, p95, p99 and max of whole rows."""
    prompt: dict[str, int]
    """Of what is only read."""
    answer: dict[str, int]
    """Of what is learned."""
    tokens: int
    """Of all rows together."""
    learned: int
    """Of them, those that count in the loss."""
    histogram: tuple[tuple[int, int, int], ...]
    """(from, to, rows): rows of `from` to `to` tokens, both included; the last bar goes to the longest row."""


def measure(examples: Sequence[Example]) -> Lengths:
    """Lengths of at least one example."""
    totals = [len(example.tokens) for example in examples]
    learned = [sum(example.mask) for example in examples]
    read = [total - part for total, part in zip(totals, learned, strict=True)]
    return Lengths(
        total=percentiles(totals),
        prompt=percentiles(read),
        answer=percentiles(learned),
        tokens=sum(totals),
        learned=sum(learned),
        histogram=histogram(totals),
    )


def percentiles(values: Sequence[int]) -> dict[str, int]:
    """Of each share the smallest value that at least as many are not above: always one that occurs."""
    ordered = sorted(values)
    names = {p: "max" if p == 100 else f"p{p}" for p in PERCENTILES}
    return {name: ordered[max(0, -(-len(ordered) * p // 100) - 1)] for p, name in names.items()}


def histogram(values: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """At most ten bars of one round width; what is above the 99th percentile's bar is in the last."""
    ordered = sorted(values)
    high = percentiles(ordered)["p99"]
    width = next(step * 10**k for k in range(12) for step in (1, 2, 5) if step * 10**k * _BARS > high)
    bars = []
    for start in range(ordered[0] // width * width, high + 1, width):
        last = start + width > high
        end = max(start + width - 1, ordered[-1]) if last else start + width - 1
        bars.append((start, end, sum(start <= value <= end for value in ordered)))
    return tuple(bars)
