"""From the names that a person gives to a loaded engine with its adapter attached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localllm.engine.base import Engine
from localllm.errors import AdapterMismatchError
from localllm.store.registry import Registry
from localllm.tasks.room import Wish, check_room
from localllm.types import AdapterRef, ModelRef
from localllm.weights.gguf import read_header
from localllm.weights.parts import read_model

BASE_HASH_KEY = "localllm.base.sha256"
"""Metadata of a GGUF adapter of ours: SHA-256 of the base it was trained on."""


@dataclass(frozen=True)
class Opened:
    """A loaded model, and what it and its adapter are called here."""

    engine: Engine
    model: ModelRef
    adapter: AdapterRef | None


def adapter_for(registry: Registry, name: str, model: ModelRef) -> AdapterRef:
    """Resolve an adapter and check that it was made for this model's very bytes, as far as it says.

    A folder of ours says so in its manifest, a bare GGUF in its metadata. Raises AdapterNotFoundError,
    AdapterMismatchError and InvalidModelError.
    """
    if model.path.is_dir():
        return _trained_on_folder(registry, registry.adapter(name), model)
    adapter = registry.adapter_for(name, model)
    if adapter.base_sha256 is None and adapter.path.is_file():
        base = read_header(adapter.path).metadata.get(BASE_HASH_KEY)
        if isinstance(base, str):
            registry.check_base(adapter, base, model)
            return replace(adapter, base_sha256=base)
    return adapter


def _trained_on_folder(registry: Registry, adapter: AdapterRef, model: ModelRef) -> AdapterRef:
    """The adapter, if it was trained on the weights of this very folder. Raises AdapterMismatchError."""
    from localllm.tasks.pairing import folder_sha256  # numpy, which a chat with a GGUF does without
    from localllm.weights.adapter import WEIGHTS
    from localllm.weights.mlx_folder import read_model_folder

    manifest = registry.manifest(adapter)
    wanted = manifest.get("training", {}).get("mlx_sha256")
    actual = folder_sha256(registry, read_model_folder(model.path))
    if wanted == actual and (adapter.path.parent / WEIGHTS).is_file():
        return adapter
    base = manifest.get("base", {}).get("name")
    other = f" but on one with other weights ({str(wanted)[:12]}, this has {actual[:12]})" if wanted else ""
    raise AdapterMismatchError(
        f"{model.name} is an MLX folder, and the adapter {adapter.name!r} was not trained on it{other}.",
        f"Use it with {f'--model {base}' if base else 'the GGUF that it was made for'}, or train one on the folder: "
        f"localllm finetune DATA --model GGUF --mlx {model.path}",
    )


def open_model(
    registry: Registry,
    model: str,
    adapter: str | None = None,
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    n_slots: int | None = 1,
    template: str | None = None,
    worker: bool = False,
    exact: bool = False,
    force: bool = False,
) -> Opened:
    """Resolve, check and load; see `LlamaEngine.open`. With `worker` the engine runs in a child process; with `force`
    also what memory does not hold.

    Raises ModelError, AdapterError, EngineError, UsageError; then nothing stays loaded.
    """
    found, wish = registry.model(model), Wish(n_ctx, n_slots, exact, n_threads)
    attached = adapter_for(registry, adapter, found) if adapter else None
    if not force:
        check_room(registry, found, wish, [path for path, _ in attachments(found, attached)])
    template = template or _template_of(found)
    if found.path.is_dir():
        engine = _load_folder(registry, found, n_ctx, n_threads, template)
    else:
        engine = _load(worker, found.path, n_ctx, n_threads, n_slots=n_slots, template=template, exact=exact)
    try:
        if wanted := attachments(found, attached):
            engine.set_adapters(wanted)
    except BaseException:
        engine.close()
        raise
    return Opened(engine, found, attached)


def _load_folder(
    registry: Registry, model: ModelRef, n_ctx: int | None, n_threads: int | None, template: str | None
) -> Engine:
    """An MLX folder, always in a child process; it answers one request at a time."""
    from localllm.tasks.mlx_child import MLXWorker

    return MLXWorker.open(model.path, n_ctx, n_threads, cache=str(registry.home.cache), template=template)


def attachments(model: ModelRef, adapter: AdapterRef | None) -> list[tuple[Path, float]]:
    """The adapters that an engine is to have, with their scales: the model's own, and the one that was chosen.

    For an MLX folder an adapter is its folder, in which it lies by MLX's names too.
    """
    own = [(path, 1.0) for path in model.adapters]
    if adapter is None:
        return own
    return [*own, (adapter.path.parent if model.path.is_dir() else adapter.path, adapter.scale)]


def _template_of(model: ModelRef) -> str | None:
    """The named template that a model comes with, unless its file holds one itself."""
    if not model.template or model.path.is_dir():
        return None
    return None if read_model(model.path).metadata.get("tokenizer.chat_template") else model.template


def open_vocabulary(registry: Registry, model: str) -> tuple[str, Engine]:
    """A model's name and its tokenizer alone, in a child process. Raises ModelError and EngineError."""
    from localllm.engine.worker import WorkerEngine

    found = registry.model(model)
    if found.path.is_dir():
        from localllm.tasks.mlx_child import MLXWorker

        return found.name, MLXWorker.open(found.path, vocab_only=True)
    return found.name, WorkerEngine.open(found.path, vocab_only=True)


def _load(worker: bool, path: Path, n_ctx: int | None, n_threads: int | None, **options: Any) -> Engine:
    """Only the one that is wanted is imported: a worker's parent does without llama.cpp."""
    if worker:
        from localllm.engine.worker import WorkerEngine

        return WorkerEngine.open(path, n_ctx, n_threads, **options)
    from localllm.engine.llama import LlamaEngine

    return LlamaEngine.open(path, n_ctx, n_threads, **options)
