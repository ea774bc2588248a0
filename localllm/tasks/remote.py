"""A model on the hub, before any of its weights is here: what there is, how large, and whether it fits this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localllm.errors import InvalidModelError, LocalLLMError, RemoteNotFoundError, UnsupportedModelError, UsageError
from localllm.hub.http import Hub
from localllm.hub.listing import RemoteFile, Repository, list_repository, nearest
from localllm.hub.reference import Reference, looks_remote, parse
from localllm.hub.remote_header import read_beginning
from localllm.hub.surroundings import Surroundings
from localllm.hub.variants import Variant, chosen, folder_variant, gguf_variants, is_mlx, left_out
from localllm.store import catalog
from localllm.store.machine import available_memory
from localllm.tasks.room import usable
from localllm.weights.architectures.base import integer
from localllm.weights.gguf import GGUFFile
from localllm.weights.inference import PROCESS, ChatFootprint, chatting
from localllm.weights.parts import Part, finished, joined
from localllm.weights.parts import read_beginning as read_header_beginning

DEFAULT_CTX = 4096
_USUAL = "Q4_K_M"
"""Whose header is read first, and what is taken where the memory is unknown."""
_BEST = "Q8_0"
"""Beyond it files grow and answers hardly change, so that it is the best that is taken unasked."""


@dataclass(frozen=True)
class Named:
    """What a person asked for, as the hub knows it."""

    reference: Reference
    name: str
    """The card's name, or owner/repo."""
    card: dict[str, Any]
    """Empty for what is not in the catalog."""
    mlx: bool = False
    """Whether the folder for MLX is wanted and not a GGUF."""

    @property
    def default(self) -> str:
        """The quantization that the card recommends."""
        return str(self.card.get("gguf", {}).get("quantization", ""))


@dataclass(frozen=True)
class Choice:
    """One of the models of a repository, and what it would take here."""

    variant: Variant
    needs: int | None = None
    """Bytes of memory to chat with it; None where that cannot be told."""
    fits: bool | None = None


@dataclass(frozen=True)
class Offer:
    """What a repository offers for this machine."""

    named: Named
    repository: Repository
    choices: tuple[Choice, ...]
    """Smallest first."""
    taken: Choice
    """The one that was asked for, or the best that fits."""
    memory: int | None
    """Bytes available here; None where the system does not say."""
    n_ctx: int | None
    header: GGUFFile | None = None
    """Of the taken one, for a GGUF."""

    def rows(self) -> list[dict[str, Any]]:
        """The choices as plain values."""
        return [
            {
                "quantization": choice.variant.quantization, "bytes": choice.variant.size, "needs": choice.needs,
                "fits": choice.fits, "files": [file.path for file in choice.variant.files],
            }
            for choice in self.choices
        ]  # fmt: skip


def named(text: str, here: Surroundings, revision: str = "", mlx: bool = False) -> Named:
    """Read a reference: a name of the catalog with or without a quantization, or one of the hub. Raises UsageError."""
    name, _, quantization = text.partition(":")
    if "/" not in text and (card := catalog.card(name)):
        if "file" in card:
            raise UsageError(f"{name} comes with the program.", f"Use it: localllm chat {name}")
        mlx = mlx or quantization.lower() == "mlx"
        if mlx and "mlx" not in card:
            raise UsageError(f"No MLX repository is known for {name}.", f"localllm pull {name} takes the GGUF.")
        repo = str(card["mlx" if mlx else "gguf"]["repo"])
        return Named(Reference(repo, "" if mlx else quantization, revision=revision), name.lower(), card, mlx)
    if "/" not in text:
        raise UsageError(f"There is no model {text!r} in the catalog.", _like(text))
    reference = parse(text, here.host)
    if revision:
        reference = replace(reference, revision=revision)
    own = catalog.name_of(reference.repo)
    card = (catalog.card(own) or {}) if own else {}
    mlx = mlx or reference.quantization.lower() == "mlx"
    reference = replace(reference, quantization="") if mlx else reference
    return Named(reference, own or reference.repo, card, mlx)


def may_be_remote(text: str) -> bool:
    """Whether this can be a name of the catalog or of the hub, as opposed to a path."""
    own = catalog.card(text.partition(":")[0]) if "/" not in text else None
    return looks_remote(text) or (own is not None and "file" not in own)


def look(hub: Hub, asked: Named, n_ctx: int | None = None, memory: int | None = None) -> Offer:
    """List the repository, choose, and tell what would fit. Raises HubError, UsageError and ModelError."""
    reference = asked.reference
    repository = list_repository(hub, reference.repo, reference.revision)
    memory = _memory() if memory is None else memory
    ggufs = gguf_variants(repository)
    folder = folder_variant(repository)
    if folder and (asked.mlx or (not ggufs and is_mlx(repository))):
        needs = PROCESS + folder.size  # without the cache, whose size a GGUF's header would tell
        choice = Choice(folder, needs, _fits(needs, memory))
        return Offer(replace(asked, mlx=True), repository, (choice,), choice, memory, n_ctx)
    if not ggufs or asked.mlx:
        raise _nothing(hub, repository, bool(folder), asked.mlx)
    named_one = reference.quantization or reference.file
    explicit = chosen(repository, ggufs, reference.quantization, reference.file) if named_one else None
    header = _header_of(hub, repository, explicit or _usual(ggufs, asked.default))
    size = n_ctx or _usual_ctx(header)
    choices = tuple(_choice(header, variant, size, memory) for variant in ggufs)
    taken = next(c for c in choices if c.variant == explicit) if explicit else best(choices, asked.default)
    if taken.variant != (explicit or _usual(ggufs, asked.default)):
        header = _header_of(hub, repository, taken.variant)
    return Offer(asked, repository, choices, taken, memory, size, header)


def best(choices: Sequence[Choice], default: str = "") -> Choice:
    """What is taken unasked: the card's default if it fits, else the largest that fits, not beyond Q8_0; when nothing
    fits, the smallest; when nothing is known of the memory, the usual one.
    """
    known = [choice for choice in choices if choice.fits is not None]
    if not known:
        return next(c for c in choices if c.variant == _usual([c.variant for c in choices], default))
    fitting = [choice for choice in known if choice.fits]
    if not fitting:
        return min(choices, key=lambda choice: choice.variant.size)
    if preferred := [c for c in fitting if c.variant.quantization.lower() == default.lower()]:
        return preferred[0]
    most = max((c.variant.size for c in choices if c.variant.quantization == _BEST), default=None)
    modest = [c for c in fitting if c.variant.is_quantized and (most is None or c.variant.size <= most)]
    return max(modest, key=lambda c: c.variant.size) if modest else min(fitting, key=lambda c: c.variant.size)


def _usual(variants: Sequence[Variant], default: str) -> Variant:
    """The one to look at first."""
    for wanted in (default, _USUAL):
        for variant in variants:
            if wanted and variant.quantization.lower() == wanted.lower():
                return variant
    return variants[len(variants) // 2]


def _choice(header: GGUFFile, variant: Variant, n_ctx: int, memory: int | None) -> Choice:
    try:
        footprint: ChatFootprint = replace(chatting(header, n_ctx), weights=variant.size)
    except InvalidModelError:  # an architecture without the numbers that count
        return Choice(variant)
    return Choice(variant, footprint.needed, _fits(footprint.needed, memory))


def _fits(needs: int, memory: int | None) -> bool | None:
    return None if memory is None else needs <= usable(memory)


def _usual_ctx(header: GGUFFile) -> int:
    try:
        return min(integer(header, "context_length"), DEFAULT_CTX)
    except (InvalidModelError, UnsupportedModelError):
        return DEFAULT_CTX


def _memory() -> int | None:
    try:
        return available_memory()
    except LocalLLMError:
        return None


def _header_of(hub: Hub, repository: Repository, variant: Variant) -> GGUFFile:
    """The checked header of a model, of all its parts. Raises InvalidModelError and HubError."""
    parts = [_part(hub, repository, file) for file in variant.files]
    return finished(parts[0]) if len(parts) == 1 else joined(parts)


def _part(hub: Hub, repository: Repository, file: RemoteFile) -> Part:
    path = Path(repository.repo) / file.path

    def attempt(beginning: bytes) -> Part | int:
        return read_header_beginning(path, beginning, file.size)

    if file.size == 0:
        raise InvalidModelError(f"{path} is empty.", "Choose another file.")
    return read_beginning(hub, repository, file, attempt)


def _nothing(hub: Hub, repository: Repository, is_folder: bool, mlx: bool) -> RemoteNotFoundError:
    """No model in the format that was wanted; what there is instead, and where else to look."""
    repo = repository.repo
    if mlx:
        return RemoteNotFoundError(
            f"{repo} holds no folder for MLX.", f"localllm pull {repo} takes a GGUF if it has one."
        )
    owner, _, name = repo.partition("/")
    near = nearest(hub, f"{owner}/{name.removesuffix('-GGUF')}-GGUF")
    others = [other for other in near if other.lower().endswith("gguf") and other != repo]
    where = f" Models in GGUF: {', '.join(others)}." if others else ""
    if some := left_out(repository):
        message = f"{repo} has no whole model in GGUF, only {', '.join(some[:3])}{' …' if len(some) > 3 else ''}."
        return RemoteNotFoundError(
            message, f"Its other parts may still be on their way to the hub, or it goes with another model.{where}"
        )
    if not is_folder:
        return RemoteNotFoundError(f"{repo} holds no GGUF and no safetensors.", f"It is not a model.{where}")
    hint = f"Look for its GGUF, often {name}-GGUF.{where} As a base for `finetune --mlx`: localllm pull {repo} --mlx"
    return RemoteNotFoundError(f"{repo} has no GGUF: its weights are safetensors.", hint)


def _like(text: str) -> str:
    from difflib import get_close_matches

    names = [name for name, card in catalog.cards().items() if "file" not in card]
    near = get_close_matches(text.lower(), names, n=3, cutoff=0.4)
    start = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{start}`localllm pull` lists the catalog; others are owner/repo on the hub."
