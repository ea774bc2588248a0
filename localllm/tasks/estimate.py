"""What a model would take on this machine: to chat with, and to teach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from localllm.errors import ModelNotFoundError, UnreachableError, UnsupportedModelError
from localllm.hub.http import Hub
from localllm.hub.surroundings import surroundings
from localllm.store.machine import available_memory
from localllm.store.registry import Registry
from localllm.tasks.memory import Fit, check_fit, residence_here, settings_of
from localllm.tasks.preparing import FinetuneRequest, prepare
from localllm.tasks.remote import Offer, look, may_be_remote, named
from localllm.tasks.room import Wish, instead, usable
from localllm.tune.config import TrainConfig
from localllm.types import ModelRef
from localllm.weights.architectures.base import integer
from localllm.weights.fit import TrainingSettings
from localllm.weights.gguf import GGUFFile
from localllm.weights.inference import ChatFootprint, chatting
from localllm.weights.parts import read_model

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
    offer: Offer | None = None
    """Of a model on the hub: its other quantizations."""
    chat_instead: tuple[str, ...] = ()
    """What would fit to chat with, where this does not."""

    @property
    def chat_fits(self) -> bool:
        """What the commands that answer decide by, too."""
        return self.chat.needed <= usable(self.memory)


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

    Without `data` every row is `max_length` tokens long. A model that is not here is looked up on the hub, unless there
    are `data`, for whose lengths its tokenizer is needed. Raises ModelError, DataError and HubError.
    """
    ref, name, header, offer = _header(registry, model, n_ctx, memory, remote=data is None)
    context = n_ctx or min(integer(header, "context_length"), DEFAULT_CTX)
    have = available_memory() if memory is None else memory
    chat, held = chatting(header, context), residence_here(header)
    wish, lengths = Wish(context), list[int]()
    fits = chat.needed <= usable(have)
    other = () if fits else tuple(instead(registry, ref, header, wish, usable(have)))
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
        fit = check_fit(header, settings, lengths, have)
        return Estimate(name, have, context, chat, fit, offer=offer, chat_instead=other)
    except UnsupportedModelError as error:
        return Estimate(name, have, context, chat, None, str(error), offer, other)


def _header(
    registry: Registry, model: str, n_ctx: int | None, memory: int | None, *, remote: bool
) -> tuple[ModelRef | None, str, GGUFFile, Offer | None]:
    """The model where it is here, its name, and its header: of the file here, or of one on the hub by ranged reads."""
    try:
        ref = registry.model(model)
        return ref, ref.name, read_model(ref.path), None
    except ModelNotFoundError as error:
        here = surroundings() if remote and may_be_remote(model) else None
        if here is None:
            raise
        try:
            with Hub(here) as hub:
                offer = look(hub, named(model, here), n_ctx, memory)
        except UnreachableError as unreachable:
            raise unreachable from error
    if offer.header is None:
        raise UnsupportedModelError(f"{model} is a folder for MLX, whose needs cannot be told.", "Give its GGUF.")
    return None, f"{offer.repository.repo}:{offer.taken.variant.quantization}", offer.header, offer
