"""The sequences of a context, what each of them holds, and where a request finds the most of its prompt computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from localllm.engine.backend import Group
from localllm.engine.running import Running

WORTH_COPYING = 32
"""Tokens of a common prefix from which on copying it beats computing it, and waiting for it beats doing it twice."""


@dataclass
class Slot:
    """One sequence of the context."""

    number: int
    tokens: list[int] = field(default_factory=list)
    """What the sequence is, of which the context has the first `held`."""
    held: int = 0
    group: Group = ()
    """The adapters that it was computed with."""
    running: Running | None = None
    last_used: int = 0

    def shares(self, prompt: list[int], group: Group, *, whole: bool) -> int:
        """How many tokens at the beginning of a prompt are held; `whole`: all that is held or nothing."""
        if group != self.group:
            return 0
        # The last token is always decoded again: its logits are needed.
        same = common_prefix(self.tokens, prompt, min(self.held, len(prompt) - 1))
        return 0 if whole and same < self.held else same


@dataclass(frozen=True)
class Placement:
    """Where a request runs: `keep` tokens of it are held there, or are copied from `source`."""

    slot: Slot
    keep: int
    source: Slot | None = None


def place(slots: Sequence[Slot], prompt: list[int], group: Group, *, can_trim: bool) -> Placement | None:
    """The free slot for a request, or None where it should wait: for a slot, or for a prefix on its way to be held."""
    free = [slot for slot in slots if slot.running is None]
    if not free:
        return None
    shared = {slot.number: slot.shares(prompt, group, whole=not can_trim) for slot in slots}
    own = max(free, key=lambda slot: (shared[slot.number], -slot.last_used, -slot.number))
    keep = shared[own.number]
    if not can_trim:
        return Placement(own, keep)
    source = max(slots, key=lambda slot: shared[slot.number])
    best = max(keep, shared[source.number])
    coming = max((_coming(slot, prompt, group) for slot in slots if slot.running), default=0)
    if coming >= WORTH_COPYING and coming > best + 1:  # the last token of an answer is never held
        return None
    if shared[source.number] - keep >= WORTH_COPYING:
        return Placement(min(free, key=lambda slot: (slot.last_used, slot.number)), shared[source.number], source)
    if keep < WORTH_COPYING:  # not worth losing what may be wanted again
        own = min(free, key=lambda slot: (slot.last_used, slot.number))
        keep = shared[own.number]
    return Placement(own, keep)


def _coming(slot: Slot, prompt: list[int], group: Group) -> int:
    """The same as `Slot.shares` once all that is to be read there has been."""
    return common_prefix(slot.tokens, prompt, len(prompt) - 1) if group == slot.group else 0


def common_prefix(a: list[int], b: list[int], limit: int) -> int:
    """How many tokens are the same from the beginning on, up to `limit`."""
    low, high = 0, min(len(a), len(b), limit)
    if a[:high] == b[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low
