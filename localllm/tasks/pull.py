"""Pull: from what a person calls a model to its verified files in the hub's cache and a name in the registry."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localllm.errors import ModelNotFoundError, NoRoomError, UnreachableError, UnsupportedModelError
from localllm.hub.cache import RepoCache
from localllm.hub.download import download, missing
from localllm.hub.events import Fetched, HubEvent
from localllm.hub.http import Hub, Limits
from localllm.hub.surroundings import Surroundings, surroundings
from localllm.hub.variants import Variant
from localllm.store.pulled import PulledModel
from localllm.store.registry import Registry
from localllm.tasks.inventory import header_facts
from localllm.tasks.remote import Named, Offer, look, named
from localllm.tasks.room import usable
from localllm.types import ModelRef
from localllm.weights.mlx_folder import read_model_folder
from localllm.weights.parts import read_model


@dataclass(frozen=True)
class PullRequest:
    """What the person asked for."""

    reference: str
    revision: str = ""
    mlx: bool = False
    """The folder for MLX and not a GGUF."""
    n_ctx: int | None = None
    """Tokens of context that have to fit."""
    memory: int | None = None
    """Bytes, if not what is available here."""
    force: bool = False
    """Also what does not fit."""
    dry_run: bool = False


@dataclass(frozen=True)
class Offered:
    """The repository was read and one of its models chosen."""

    offer: Offer
    to_fetch: int
    """Bytes that are not here yet."""
    free: int
    """Bytes that the disk of the cache has left."""


@dataclass(frozen=True)
class Noted:
    """Something that the person should know."""

    message: str


@dataclass(frozen=True)
class Pulled:
    """The model is complete, verified and in the registry."""

    model: ModelRef
    repo: str
    commit: str
    bytes: int
    received: int
    """Bytes that came over the network now."""
    kept: int
    """Bytes that an earlier pull had left."""
    seconds: float
    checked: bool = True
    """False when the hub could not be asked, and what was here is all that is known."""


PullEvent = Offered | Noted | HubEvent | Pulled


def pull(
    registry: Registry,
    request: PullRequest,
    cancel: threading.Event | None = None,
    here: Surroundings | None = None,
    limits: Limits | None = None,
) -> Iterator[PullEvent]:
    """Fetch a model and register it; with `dry_run` only Offered comes. The last event is otherwise Pulled.

    Raises UsageError, HubError, ModelError, StorageError and CancelledError: the model is then not registered, and
    whatever arrived of it is kept for the next pull, unless it proved wrong.
    """
    started = time.perf_counter()
    here = here or surroundings()
    asked = named(request.reference, here, request.revision, request.mlx)
    with Hub(here, limits, cancel) as hub:
        try:
            offer = look(hub, asked, request.n_ctx, request.memory)
        except UnreachableError as error:
            yield from _already(registry, request, error, started)
            return
        cache = RepoCache(here.cache, offer.repository.repo)
        files = offer.taken.variant.files
        yield Offered(offer, missing(cache, files), cache.free())
        if left_out := offer.repository.left_out:
            yield Noted(f"{len(left_out)} files are left out for their names, such as {left_out[0]!r:.60}.")
        if offer.taken.fits is False and not request.force:
            raise _does_not_fit(offer)
        if request.dry_run:
            return
        received = kept = 0
        for event in download(hub, offer.repository, files, registry.sha256):
            yield event
            if isinstance(event, Fetched):
                received, kept = received + event.received, kept + event.kept
                if event.received and offer.repository.file(event.path) and len(_digest(offer, event.path)) == 64:
                    registry.remember_sha256(event.where, _digest(offer, event.path))
    manifest, notes = _checked(offer, cache)
    yield from map(Noted, notes)
    model = registry.add_pulled(manifest)
    seconds = time.perf_counter() - started
    yield Pulled(model, manifest.repo, manifest.commit, manifest.bytes, received, kept, seconds)


def _digest(offer: Offer, path: str) -> str:
    file = offer.repository.file(path)
    return file.digest if file else ""


def _already(registry: Registry, request: PullRequest, error: UnreachableError, started: float) -> Iterator[PullEvent]:
    """Without the hub, what is here will do. Raises the error when it is not here, or another revision is wanted."""
    try:
        model = registry.model(request.reference)
    except ModelNotFoundError:
        raise error from None
    found = next((p for p in registry.pulled() if p.full_name == model.name and Path(p.path) == model.path), None)
    if found is None or request.revision not in ("", found.revision, found.commit):
        raise error
    yield Noted(f"{error.message} What was pulled before is used.")
    seconds = time.perf_counter() - started
    yield Pulled(model, found.repo, found.commit, found.bytes, 0, 0, seconds, checked=False)


def _does_not_fit(offer: Offer) -> NoRoomError:
    """The refusal, with what would fit instead."""
    taken, available = offer.taken, usable(offer.memory or 0)
    needs = (taken.needs or 0) / 1e9
    message = f"{offer.repository.repo} as {taken.variant.quantization} needs about {needs:.1f} GB of memory"
    message += f" with {offer.n_ctx} tokens of context" if offer.n_ctx else ""
    fitting = [choice.variant.quantization for choice in offer.choices if choice.fits]
    if fitting:
        hint = f"These fit: {', '.join(fitting[-5:])}. --force takes it all the same."
    else:
        hint = "None of its quantizations fits: take a smaller model or --ctx; --force takes it all the same."
    return NoRoomError(f"{message}, and {available / 1e9:.1f} GB may be used.", hint)


def _checked(offer: Offer, cache: RepoCache) -> tuple[PulledModel, list[str]]:
    """Look into the files before they get a name. Raises ModelError for what is no model, or not one for us."""
    repository, variant, asked = offer.repository, offer.taken.variant, offer.named
    notes: list[str] = []
    if asked.mlx:
        path = cache.snapshot(repository.commit)
        try:
            config = read_model_folder(path).config
            kind, weights = str(config.get("model_type", "")), _mlx_weights(config)
        except UnsupportedModelError as error:
            kind, weights = "", "safetensors"
            notes.append(f"It cannot be fine-tuned: {error.message}")
    else:
        path = cache.pointer(repository.commit, variant.files[0].path)
        facts = header_facts(read_model(path))
        kind, weights = facts["architecture"], facts["quantization"]
    files = tuple((file.path, file.size, file.digest) for file in variant.files)
    model = PulledModel(
        name=asked.name, label=_label(offer, variant, asked), format="mlx" if asked.mlx else "gguf",
        repo=repository.repo, revision=repository.revision, commit=repository.commit, path=str(path), files=files,
        architecture=kind, quantization=weights,
    )  # fmt: skip
    return model, notes


def _label(offer: Offer, variant: Variant, asked: Named) -> str:
    """The quantization; where several files have the same, the file's own name."""
    if asked.mlx:
        return "mlx"
    same = [choice for choice in offer.choices if choice.variant.quantization == variant.quantization]
    return variant.quantization if len(same) == 1 else Path(variant.files[0].path).stem


def _mlx_weights(config: dict[str, object]) -> str:
    said = config.get("quantization")
    bits = said.get("bits") if isinstance(said, dict) else None
    return f"MLX {bits}-bit" if isinstance(bits, int) else f"MLX {config.get('torch_dtype', '')}".strip()
