"""Work on a tensor piece by piece, on all cores: what lies between two steps of a piece stays near the processor.

numpy lets go of the interpreter while it computes, so threads are enough, and they share the mapped file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

WEIGHTS = 1 << 20
"""Weights in one piece; its float32 values take 4 MiB. With smaller ones threads wait for the interpreter too often."""
_FEWEST = 1 << 19
_PART = 10
"""All pieces at work together are at most this part of the tensor: a weight takes up to 20 bytes between steps."""
_NARROW = 3
"""How much longer pieces may be that need 4 to 6 bytes for a weight."""


def workers() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def each_chunk(n_blocks: int, weights: int, work: Callable[[slice], None], *, narrow: bool = False) -> None:
    """Call `work` with slices that together cover `n_blocks` blocks of `weights` weights, in any order, on all cores.

    `narrow` says that `work` has bytes between steps and no float32: its pieces may be longer. The first exception that
    `work` raises is raised again.
    """
    threads, longer = workers(), _NARROW if narrow else 1
    size = longer * min(WEIGHTS, max(_FEWEST, n_blocks * weights // (_PART * threads)))
    step = max(1, size // weights)
    slices = [slice(start, min(start + step, n_blocks)) for start in range(0, n_blocks, step)]
    if min(threads, len(slices)) < 2:
        for piece in slices:
            work(piece)
        return
    _reuse_freed_memory()
    with ThreadPoolExecutor(threads, "localllm-weights") as pool:
        for _ in pool.map(work, slices):
            pass


@cache
def _reuse_freed_memory() -> None:
    """Let glibc keep the memory of temporaries of up to 30 MB for the next ones.

    It gives back to the system whatever is larger than the largest block freed so far (mallopt(3), the dynamic
    M_MMAP_THRESHOLD), and getting a page anew takes several times as long as computing what goes into it.
    """
    np.empty(30 << 20, np.uint8)
