"""How many requests to answer side by side: what memory has room for, and what the cores gain from."""

from __future__ import annotations

from localllm.engine.threads import physical_cores
from localllm.errors import LocalLLMError
from localllm.store.machine import available_memory
from localllm.weights.gguf import GGUFFile
from localllm.weights.inference import chatting

SLOTS_PER_CORE = 8
"""Decoding more sequences at once than this is hardly faster."""
MOST_SLOTS = 64
LEAST_OF_A_LANE = 4
"""Slots: with fewer, weights are read too often for what is computed with them."""
MOST_LANES = 4
"""Each has buffers of its own."""
SHARE = 0.8
"""Of the memory that is free: other programs go on."""


def batch_slots(
    file: GGUFFile, n_ctx: int, *, exact: bool = False, memory: int | None = None, cores: int | None = None
) -> int:
    """Slots of `n_ctx` tokens each, for work that comes in batches; at least one, even where memory seems too small.

    `exact`: as of `LlamaEngine.open`; `memory`: bytes that may be used (default: a share of what is free); `cores`: as
    many threads as decode.
    """
    if memory is None:
        try:
            memory = int(SHARE * available_memory())
        except LocalLLMError:
            return 1
    cores = cores or physical_cores()
    most = min(MOST_SLOTS, SLOTS_PER_CORE * cores)
    return next((n for n in range(most, 1, -1) if needed_bytes(file, n_ctx, n, cores, exact=exact) <= memory), 1)


def lane_sizes(n_slots: int, cores: int) -> list[int]:
    """How many slots each lane of `engine.lanes` has, as evenly as possible; one lane where slots or cores are few."""
    lanes = max(1, min(MOST_LANES, cores, n_slots // LEAST_OF_A_LANE))
    return [n_slots // lanes + (lane < n_slots % lanes) for lane in range(lanes)]


def needed_bytes(file: GGUFFile, n_ctx: int, n_slots: int, cores: int, *, exact: bool = False) -> int:
    """Of memory for so many slots; what is computed at once lies in it once for each lane.

    Raises InvalidModelError or UnsupportedModelError where a number is missing.
    """
    footprint = chatting(file, n_ctx, n_slots, exact=exact)
    return footprint.needed + (len(lane_sizes(n_slots, cores)) - 1) * footprint.buffers
