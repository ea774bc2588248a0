"""Models to choose from, and whether this machine's memory holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localllm.errors import LocalLLMError
from localllm.store.machine import available_memory
from localllm.store.registry import Registry
from localllm.tasks.room import usable
from localllm.types import ModelRef
from localllm.weights.gguf import read_header
from localllm.weights.inference import chatting

if TYPE_CHECKING:
    from localllm.tasks.browsing import Listed


def model_choices(registry: Registry, n_ctx: int) -> list[Listed]:
    """Every model on this machine, with its size and whether it fits; takes a moment where headers are new."""
    from localllm.tasks.browsing import free_memory, here

    return [row for batch in here(registry, n_ctx, free_memory()) for row in batch]


def fits_beside(model: ModelRef, n_ctx: int) -> bool:
    """Whether free memory holds this model too; true where the system or the file does not say."""
    try:
        return chatting(read_header(model.path), n_ctx).needed <= usable(available_memory())
    except LocalLLMError:
        return True
