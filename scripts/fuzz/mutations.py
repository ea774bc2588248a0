"""Damage done to GGUF files, the same for the same seed and number.

Half of the cases are blind: bits, cuts, splices, wrong counts. The others take the file apart, change what an entry or
a tensor says and put it together again, so that the damage reaches the checks behind the outer ones.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from .changes import HUGE, OF_ENTRIES, OF_TENSORS
from .parts import take_apart

_U64 = struct.Struct("<Q")


class Mutator:
    """Damaged copies of some valid files."""

    def __init__(self, seeds: Sequence[bytes], seed: int = 0) -> None:
        self._seeds, self._seed = list(seeds), seed
        self._parts = [take_apart(file) for file in self._seeds]

    def case(self, number: int) -> bytes:
        """Case `number`, which depends on nothing else but the seed."""
        rng = random.Random((self._seed << 40) | number)
        which = rng.randrange(len(self._seeds))
        if rng.random() < 0.5:
            return self._blind(rng, which)
        parts = self._parts[which]
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
            change = rng.choice(OF_TENSORS) if rng.random() < 0.3 and parts.tensors else rng.choice(OF_ENTRIES)
            parts = change(rng, parts)
        return parts.assembled

    def _blind(self, rng: random.Random, which: int) -> bytes:
        data = bytearray(self._seeds[which])
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = self._place(rng, which, len(data))
            kind = rng.randrange(8)
            if kind == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[at] = rng.randrange(256)
            elif kind in (2, 3):
                data[at : at + 8] = _number(rng, data[at : at + 8])
            elif kind == 4:
                del data[at:]
            elif kind == 5:
                other = self._seeds[rng.randrange(len(self._seeds))]
                data[at:] = other[rng.choice((at, rng.randrange(len(other)))) :]
            elif kind == 6:
                del data[at : at + rng.choice((1, 4, 8, 64))]
            else:
                data[at:at] = data[at : at + rng.choice((1, 4, 8, 64))]
            if not data:
                break
        return bytes(data)

    def _place(self, rng: random.Random, which: int, size: int) -> int:
        """A byte to damage: a count, length, type or offset, or anywhere, mostly in the header."""
        chance = rng.random()
        if chance < 0.6:
            return min(rng.choice(self._parts[which].marks), size - 1)
        header = min(size, self._parts[which].marks[-1] + 8)
        return rng.randrange(header if chance < 0.9 else size)


def _number(rng: random.Random, old: bytes) -> bytes:
    """What takes the place of a 32-bit or 64-bit number."""
    if rng.random() < 0.4 and len(old) == 8:
        return _U64.pack((_U64.unpack(old)[0] + rng.choice((-1, 1, 8, -8, 32))) % (1 << 64))
    value = rng.choice(HUGE)
    return _U64.pack(value) if rng.random() < 0.5 else struct.pack("<I", value % (1 << 32))
