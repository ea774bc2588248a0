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
SHARE = 0.8
"""Of the memory that is free: other programs go on."""


def batch_slots(file: GGUFFile, n_ctx: int, *, memory: int | None = None, cores: int | None = None) -> int:
    """Slots of `n_ctx` tokens each, for work that comes in batches; at least one, even where memory seems too small.

    `memory`: bytes that may be used (default: a share of what is free); `cores`: as many threads as decode.
    """
    if memory is None:
        try:
            memory = int(SHARE * available_memory())
        except LocalLLMError:
            return 1
    most = min(MOST_SLOTS, SLOTS_PER_CORE * (cores or physical_cores()))
    return next((n for n in range(most, 1, -1) if chatting(file, n_ctx, n).total <= memory), 1)
