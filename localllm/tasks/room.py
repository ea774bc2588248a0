"""Whether a model has room in this machine's memory before it is loaded, and what would have instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localllm.engine.capacity import needed_bytes
from localllm.engine.loading import DEFAULT_CTX
from localllm.engine.threads import physical_cores
from localllm.errors import LocalLLMError, ModelError, NoRoomError
from localllm.store import catalog
from localllm.store.machine import available_memory
from localllm.store.registry import Registry
from localllm.types import ModelRef
from localllm.weights.architectures.base import integer
from localllm.weights.gguf import GGUFFile
from localllm.weights.inference import chatting
from localllm.weights.parts import part_paths, read_model

SPARE = 0.10
"""Part of the available memory that stays free: estimates may be off by as much."""
LEAST_CTX = 512
"""A context below this is no help to anybody."""
MOST_LOOKED_AT = 4
"""Headers of other models that are read for a refusal."""
BITS = {"Q4_K_M": 4.9, "Q5_K_M": 5.7, "Q6_K": 6.6, "Q8_0": 8.5, "F16": 16.0}
"""Of a weight, with scales and the tensors that a quantization keeps wider."""
BESIDE = 600_000_000
"""Bytes of a small model's cache of 4096 tokens, vocabulary and process, where only its number of weights is known."""


@dataclass(frozen=True)
class Wish:
    """How a model is to be opened, as far as that decides its memory."""

    n_ctx: int | None = None
    n_slots: int | None = 1
    """None: as many as there is room for, so one has to fit."""
    exact: bool = False
    n_threads: int | None = None

    def slots(self) -> int:
        return self.n_slots or 1


def usable(memory: int) -> int:
    """Bytes that a model may take where so many are available."""
    return int(memory * (1 - SPARE))


def check_room(registry: Registry, model: ModelRef, wish: Wish, adapters: Sequence[Path] = ()) -> None:
    """Raises NoRoomError, naming what would fit, for a model that memory does not hold with its adapters.

    Says nothing where the system, or a file of an unknown kind, does not tell enough, and of a context that the model
    does not have: opening it explains that. Raises InvalidModelError.
    """
    need = _need(model, adapters)
    if need is None:
        return
    try:
        have = usable(available_memory())
    except LocalLLMError:
        return
    n_ctx, n_slots = need.n_ctx(wish), wish.slots()
    taken = need.bytes(n_ctx, n_slots, wish)
    if n_ctx > need.trained or taken <= have:
        return
    context = f"{n_ctx} tokens of context"
    context = f"{n_slots} answers at a time, each with {context}" if n_slots > 1 else context
    message = f"{model.name} needs about {gigabytes(taken)} of memory for {context}, and {gigabytes(have)} may be used."
    others = _others(registry, model, wish, have, _size(model))
    raise NoRoomError(message, hint([*_smaller(need, wish, have), *others]))


def instead(registry: Registry, model: ModelRef | None, file: GGUFFile, wish: Wish, have: int) -> list[str]:
    """What would fit into so many bytes in place of a file that does not; `model` is None for one that is not here."""
    need, here = _file_need(file, 0), model or ModelRef("", file.path, "path")
    smaller = _smaller(need, wish, have) if need else ()
    return [*smaller, *_others(registry, here, wish, have, file.size)]


def hint(alternatives: Sequence[str]) -> str:
    """What would fit, in a sentence, and how to try it all the same."""
    what = f"This would fit: {'; or '.join(alternatives)}." if alternatives else "Close other programs."
    return f"{what} --force tries it all the same."


def gigabytes(size: float) -> str:
    """A size as people say it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def catalog_choice(memory: int, less_than: float = float("inf")) -> str:
    """The largest model of the catalog that so many bytes hold with 4096 tokens of context, and that takes less than
    so many; nothing where there is none.
    """
    sizes = {name: _card_bytes(card) for name, card in catalog.cards().items() if "gguf" in card}
    fitting = {name: size for name, size in sizes.items() if size is not None and size <= min(memory, less_than - 1)}
    return max(fitting, key=lambda name: (fitting[name], name), default="")


def _card_bytes(card: dict[str, object]) -> float | None:
    weights, gguf = card.get("parameters"), card.get("gguf")
    bits = BITS.get(str(gguf.get("quantization", ""))) if isinstance(gguf, dict) else None
    return weights * bits / 8 + BESIDE if bits and isinstance(weights, int) else None


@dataclass(frozen=True)
class _Need:
    """What of a model decides its memory."""

    usual: int
    """Tokens of context that it is opened with unasked."""
    trained: int
    bytes: Callable[[int, int, Wish], int]
    """Of a context of so many tokens, for so many answers at a time."""

    def n_ctx(self, wish: Wish) -> int:
        return wish.n_ctx or self.usual


def _need(model: ModelRef, adapters: Sequence[Path] = ()) -> _Need | None:
    """Raises InvalidModelError; None for a file whose kind is not known well enough."""
    if model.path.is_dir():
        return None
    return _file_need(read_model(model.path), sum(path.stat().st_size for path in adapters if path.is_file()))


def _file_need(file: GGUFFile, beside: int) -> _Need | None:
    try:
        trained = integer(file, "context_length")
        chatting(file, LEAST_CTX)
    except ModelError:
        return None

    def needed(n_ctx: int, n_slots: int, wish: Wish) -> int:
        return needed_bytes(file, n_ctx, n_slots, wish.n_threads or physical_cores(), exact=wish.exact) + beside

    return _Need(min(trained, DEFAULT_CTX), trained, needed)


def _smaller(need: _Need, wish: Wish, have: int) -> Iterator[str]:
    """The same model with fewer answers at a time, or else with a smaller context."""
    n_ctx, n_slots = need.n_ctx(wish), wish.slots()
    for slots in range(n_slots - 1, 0, -1):
        if need.bytes(n_ctx, slots, wish) <= have:
            yield f"{slots} at a time" if slots > 1 else "one at a time"
            return
    while (n_ctx := n_ctx // 2) >= LEAST_CTX:
        if need.bytes(n_ctx, 1, wish) <= have:
            yield f"--ctx {n_ctx}"
            return


def _others(registry: Registry, model: ModelRef, wish: Wish, have: int, size: int) -> Iterator[str]:
    """The largest other model of this machine that fits, the same in another quantization first, and of the catalog;
    `size` is that of the model's file."""
    own = model.name.partition(":")[0]
    others = [(_size(other), other) for other in _here(registry) if other.path != model.path]
    smaller = [(bytes_, other) for bytes_, other in others if 0 < bytes_ < min(size, have)]
    smaller.sort(key=lambda found: (found[1].name.partition(":")[0] == own, found[0]), reverse=True)
    here = (other for _, other in smaller[:MOST_LOOKED_AT] if other.source != "built-in" and _fits(other, wish, have))
    if (found := next(here, None)) is not None:
        yield f"--model {found.name}"
    if name := catalog_choice(have, size):
        yield f"{name} of the catalog (localllm pull {name})"


def _here(registry: Registry) -> Iterator[ModelRef]:
    yield from registry.models()
    for pulled in registry.pulled():
        with suppress(ModelError):  # its files may be gone
            yield registry.model(pulled.full_name)


def _fits(model: ModelRef, wish: Wish, have: int) -> bool:
    try:
        need = _need(model)
    except ModelError:
        return False
    if need is None or (wish.n_ctx or 0) > need.trained:
        return False
    return need.bytes(need.n_ctx(wish), 1, wish) <= have


def _size(model: ModelRef) -> int:
    """Bytes on the disk; 0 for what is not there."""
    try:
        files = [f for f in model.path.iterdir() if f.is_file()] if model.path.is_dir() else part_paths(model.path)
        return sum(file.stat().st_size for file in files)
    except OSError:
        return 0
