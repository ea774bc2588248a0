"""From the names that a person gives to a loaded engine with its adapter attached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from localllm.store.registry import Registry
from localllm.types import AdapterRef, ModelRef

if TYPE_CHECKING:
    from localllm.engine.llama import LlamaEngine


@dataclass(frozen=True)
class Opened:
    """A loaded model, and what it and its adapter are called here."""

    engine: LlamaEngine
    model: ModelRef
    adapter: AdapterRef | None


def open_model(
    registry: Registry,
    model: str,
    adapter: str | None = None,
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    template: str | None = None,
) -> Opened:
    """Resolve, check and load. Raises ModelError, AdapterError, EngineError, UsageError; then nothing stays loaded."""
    from localllm.engine.llama import LlamaEngine

    found = registry.model(model)
    attached = registry.adapter_for(adapter, found) if adapter else None
    engine = LlamaEngine.open(found.path, n_ctx, n_threads, template=template)
    try:
        if attached:
            engine.set_adapters([(attached.path, attached.scale)])
    except BaseException:
        engine.close()
        raise
    return Opened(engine, found, attached)
