"""Texts that are nearly the same: MinHash over runs of three words, in time linear in the number of texts.

Texts whose signatures agree in one of the bands are candidates, compared with the first and the last text of their
bucket alone; what is reported has its true Jaccard similarity computed. A pair at the threshold may be missed, none is
made up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Sized
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.8
"""Shared runs of three words, of all that either text has: about one word in 27 changed."""
_RUN = 3
_BANDS, _ROWS = 16, 4
_BLOCK = 1 << 16
"""Words that are hashed at a time."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
"""A word, or one character of the scripts that put no spaces between them."""

Hashes = NDArray[np.uint64]
T = TypeVar("T", bound=Sized)


def near_duplicates(texts: Sequence[str], threshold: float = THRESHOLD) -> list[tuple[int, int]]:
    """(later, earlier) indices of texts at least that similar, one pair for each later text, in order.

    Texts of fewer than eight words are left out: one word more or less is much of them.
    """
    runs = _runs(texts)
    kept = [i for i, run in enumerate(runs) if len(run) >= 8 - _RUN + 1]
    if len(kept) < 2:
        return []
    signatures = _signatures([runs[i] for i in kept])
    found: dict[int, int] = {}
    for later, earlier in _candidates(signatures):
        if later not in found and _jaccard(runs[kept[later]], runs[kept[earlier]]) >= threshold:
            found[later] = earlier
    return [(kept[later], kept[earlier]) for later, earlier in sorted(found.items())]


def _runs(texts: Sequence[str]) -> list[Hashes]:
    """For each text the hashes of its runs of words, in order."""
    numbers: dict[str, int] = {}
    words = [[numbers.setdefault(word, len(numbers) + 1) for word in _WORD.findall(text.casefold())] for text in texts]
    found = []
    for block in _blocks(words):
        hashed = _mixed(np.fromiter(chain.from_iterable(block), np.uint64))
        runs = hashed[: max(0, len(hashed) - _RUN + 1)]
        for k in range(1, _RUN):
            runs = _mixed(runs * np.uint64(31) + hashed[k : k + len(runs)])
        ends = np.cumsum([len(row) for row in block])
        found += [runs[end - len(row) : max(end - _RUN + 1, 0)] for row, end in zip(block, ends, strict=True)]
    return found


def _mixed(x: Hashes) -> Hashes:
    """Every bit of the result depends on every bit of `x` (the finalizer of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _signatures(runs: Sequence[Hashes]) -> NDArray[np.uint32]:
    """[texts, bands × rows]: the smallest of each text's hashes under as many orders."""
    factors = (_mixed(np.arange(1, _BANDS * _ROWS + 1, dtype=np.uint64)) >> np.uint64(32)).astype(np.uint32)
    blocks = []
    for block in _blocks(runs):
        flat = (np.concatenate(block) >> np.uint64(32)).astype(np.uint32)
        starts = np.cumsum([0, *(len(run) for run in block[:-1])])
        columns = [np.minimum.reduceat(flat * (factor | np.uint32(1)), starts) for factor in factors]
        blocks.append(np.stack(columns, axis=1))
    return np.concatenate(blocks)


def _blocks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Consecutive rows of about as many items together, so that work on them stays in the processor's cache."""
    start = size = 0
    for i, row in enumerate(rows):
        if size and size + len(row) > _BLOCK:
            yield rows[start:i]
            start, size = i, 0
        size += len(row)
    yield rows[start:]


def _candidates(signatures: NDArray[np.uint32]) -> list[tuple[int, int]]:
    """(later, earlier) pairs that share a band and much of the rest, the earliest partners first."""
    pairs = set()
    for band in range(_BANDS):
        rows = np.ascontiguousarray(signatures[:, band * _ROWS : (band + 1) * _ROWS])
        keys = rows.view([("", np.uint32)] * _ROWS).ravel()
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        first = order[0]
        for at in np.flatnonzero(same):
            if at == 0 or not same[at - 1]:
                first = order[at]
            pairs |= {(int(order[at + 1]), int(first)), (int(order[at + 1]), int(order[at]))}
    likely = [(a, b) for a, b in pairs if np.mean(signatures[a] == signatures[b]) >= THRESHOLD - 0.2]
    return sorted(likely)


def _jaccard(a: Hashes, b: Hashes) -> float:
    a, b = np.unique(a), np.unique(b)
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)
