"""How prompts are cut into batches: what llama.cpp computes at once, and what it computes fast.

Sequences with keys and values of their own are computed together only in neighbouring slots and with as many tokens of
each; everything else becomes a batch of its own. Attention takes queries in tiles, and a chunk shorter than a tile one
by one. A batch costs something however small it is. Costs here are in tokens of a large batch, measured with 135
million weights on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence

TILE = 64
"""Queries that llama.cpp's attention computes together on a CPU (GGML_FA_TILE_Q)."""
BATCH_COST = 15.0
LONE_COST = 0.8
"""Of a token that is not in a tile, beyond what it costs there."""


def cut(waiting: Sequence[int], room: int) -> tuple[int, int]:
    """How many of the prompts to read on in one batch, from the first on, and how many tokens of each of them.

    `waiting` are the tokens that each has left, at least 1; they lie in neighbouring slots. The batch takes `room` at
    most, at least 1.
    """
    best, best_pace = (1, 1), 0.0
    shortest = waiting[0]
    for n, left in enumerate(waiting[:room], 1):
        shortest = min(shortest, left)
        most = min(shortest, room // n)
        for count in {most, _without_tail(waiting[:n], most)}:
            if (pace := _pace(waiting[:n], count)) > best_pace:
                best, best_pace = (n, count), pace
    return best


def _without_tail(waiting: Sequence[int], most: int) -> int:
    """The most tokens of each after which none has less than a tile left, if that is possible."""
    count = min((left - TILE for left in waiting if most < left < most + TILE), default=most)
    return count if count >= TILE else most


def _pace(waiting: Sequence[int], count: int) -> float:
    """Tokens for what they cost, now and later."""
    tokens = len(waiting) * count
    lone = tokens if count < TILE else 0
    tails = sum(left - count for left in waiting if left >= TILE and left - count < TILE)
    return tokens / (BATCH_COST + tokens + LONE_COST * (lone + tails))
