"""From the names that a person gives to a loaded engine with its adapter attached."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from localllm.store.registry import Registry
from localllm.types import AdapterRef, ModelRef
from localllm.weights.gguf import read_header

if TYPE_CHECKING:
    from localllm.engine.llama import LlamaEngine

BASE_HASH_KEY = "localllm.base.sha256"
"""Metadata of a GGUF adapter of ours: SHA-256 of the base it was trained on."""


@dataclass(frozen=True)
class Opened:
    """A loaded model, and what it and its adapter are called here."""

    engine: LlamaEngine
    model: ModelRef
    adapter: AdapterRef | None


def adapter_for(registry: Registry, name: str, model: ModelRef) -> AdapterRef:
    """Resolve an adapter and check that it was made for this model's very bytes, as far as it says.

    A folder of ours says so in its manifest, a bare GGUF in its metadata. Raises AdapterNotFoundError,
    AdapterMismatchError and InvalidModelError.
    """
    adapter = registry.adapter_for(name, model)
    if adapter.base_sha256 is None and adapter.path.is_file():
        base = read_header(adapter.path).metadata.get(BASE_HASH_KEY)
        if isinstance(base, str):
            registry.check_base(adapter, base, model)
            return replace(adapter, base_sha256=base)
    return adapter


def open_model(
    registry: Registry,
    model: str,
    adapter: str | None = None,
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    n_slots: int | None = 1,
    template: str | None = None,
) -> Opened:
    """Resolve, check and load; see `LlamaEngine.open`.

    Raises ModelError, AdapterError, EngineError, UsageError; then nothing stays loaded.
    """
    from localllm.engine.llama import LlamaEngine

    found = registry.model(model)
    attached = adapter_for(registry, adapter, found) if adapter else None
    engine = LlamaEngine.open(found.path, n_ctx, n_threads, n_slots=n_slots, template=template)
    try:
        if attached:
            engine.set_adapters([(attached.path, attached.scale)])
    except BaseException:
        engine.close()
        raise
    return Opened(engine, found, attached)
