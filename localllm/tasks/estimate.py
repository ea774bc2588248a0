"""What a model would take on this machine: to chat with, and to teach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from localllm.errors import UnsupportedModelError
from localllm.store.machine import available_memory
from localllm.store.registry import Registry
from localllm.tasks.memory import Fit, check_fit, residence_here, settings_of
from localllm.tasks.preparing import FinetuneRequest, prepare
from localllm.tune.config import TrainConfig
from localllm.weights.architectures.base import integer
from localllm.weights.fit import TrainingSettings
from localllm.weights.gguf import read_header
from localllm.weights.inference import ChatFootprint, chatting

DEFAULT_ROWS, DEFAULT_LENGTH, DEFAULT_CTX = 4, 512, 4096


@dataclass(frozen=True)
class Estimate:
    """Of one model."""

    model: str
    memory: int
    """Bytes available."""
    n_ctx: int
    chat: ChatFootprint
    training: Fit | None
    """None for an architecture that cannot be fine-tuned; `why` then says so."""
    why: str = ""


def estimate(
    registry: Registry,
    model: str,
    *,
    data: Path | None = None,
    n_ctx: int | None = None,
    batch_size: int | None = None,
    max_length: int | None = None,
    rank: int = 16,
    grad_checkpoint: bool = False,
    memory: int | None = None,
) -> Estimate:
    """From the header and, with `data`, from the lengths of its rows; no weights are read.

    Without `data` every row is `max_length` tokens long. Raises ModelError and DataError.
    """
    ref = registry.model(model)
    header = read_header(ref.path)
    context = n_ctx or min(integer(header, "context_length"), DEFAULT_CTX)
    have = available_memory() if memory is None else memory
    chat, held = chatting(header, context), residence_here(header)
    lengths: list[int] = []
    try:
        if data is None:
            length = min(max_length or DEFAULT_LENGTH, integer(header, "context_length"))
            rows = max(1, min(batch_size or DEFAULT_ROWS, (TrainConfig.batch_tokens or length) // length))
            settings = TrainingSettings(rows, length, rank=rank, residence=held, grad_checkpoint=grad_checkpoint)
        else:
            request = FinetuneRequest(
                data=data, name="", model=model, batch_size=batch_size, max_length=max_length, rank=rank,
                grad_checkpoint=grad_checkpoint, too_long="skip",
            )  # fmt: skip
            prepared = prepare(registry, request)
            lengths = [len(example.tokens) for example in prepared.train]
            settings = settings_of(prepared.config, prepared.train, held)
        return Estimate(ref.name, have, context, chat, check_fit(header, settings, lengths, have))
    except UnsupportedModelError as error:
        return Estimate(ref.name, have, context, chat, None, str(error))
