"""Models to choose from, and whether this machine's memory holds them."""

from __future__ import annotations

from dataclasses import dataclass

from localllm.errors import LocalLLMError
from localllm.store.machine import available_memory
from localllm.store.registry import Registry
from localllm.tasks.room import usable
from localllm.types import ModelRef
from localllm.weights.gguf import read_header
from localllm.weights.inference import chatting


@dataclass(frozen=True)
class Choice:
    """A model, and what is to be said of it in a line."""

    name: str
    facts: str
    usable: bool


def model_choices(registry: Registry, n_ctx: int) -> list[Choice]:
    """Every model on this machine, with its size and whether it fits; from the headers alone."""
    return [_choice(model, n_ctx) for model in registry.models()]


def _choice(model: ModelRef, n_ctx: int) -> Choice:
    try:
        header = read_header(model.path)
        needed = chatting(header, n_ctx).needed
    except LocalLLMError as error:
        return Choice(model.name, f"cannot be used: {error.message}", False)
    size = f"{header.size / 1e9:.1f} GB" if header.size >= 1e9 else f"{header.size / 1e6:.0f} MB"
    facts = f"{header.architecture} · {size} · takes {needed / 1e9:.1f} GB with {n_ctx} tokens of context"
    try:
        available = usable(available_memory())
    except LocalLLMError:
        return Choice(model.name, facts, True)
    verdict = "fits" if needed <= available else f"does not fit: {available / 1e9:.1f} GB may be used"
    return Choice(model.name, f"{facts} · {verdict}", True)


def fits_beside(model: ModelRef, n_ctx: int) -> bool:
    """Whether free memory holds this model too; true where the system or the file does not say."""
    try:
        return chatting(read_header(model.path), n_ctx).needed <= usable(available_memory())
    except LocalLLMError:
        return True
