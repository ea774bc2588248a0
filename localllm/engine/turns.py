"""What a request does in the next batch, and which requests can do it together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile

from localllm.engine.backend import Part
from localllm.engine.running import Running


@dataclass(frozen=True)
class Turn:
    """`count` tokens of a request in the next batch, and a draft of those that may follow."""

    running: Running
    count: int
    draft: Sequence[int] = ()

    def part(self) -> Part:
        slot, tokens = self.running.place, self.running.tokens
        end = slot.held + self.count
        rows = 1 + len(self.draft) if end == len(tokens) else 0
        return Part(slot.number, slot.held, [*tokens[slot.held : end], *self.draft], rows)


def in_order(turns: Sequence[Turn]) -> list[Turn]:
    return sorted(turns, key=lambda turn: turn.running.place.number)


def neighbours(reading: Sequence[Running]) -> list[Running]:
    """The oldest and those in the slots beside it, without a gap: first those after it, then those before."""
    by_slot = {running.place.number: running for running in reading}
    at = reading[0].place.number
    after = list(takewhile(lambda running: running is not None, (by_slot.get(n) for n in count(at))))
    before = list(takewhile(lambda running: running is not None, (by_slot.get(n) for n in count(at - 1, -1))))
    return [running for running in (*after, *before) if running is not None]
