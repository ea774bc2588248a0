"""Chat: a model, an adapter that can be switched in the middle, and the conversation between them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from localllm.engine.base import Engine, Event
from localllm.engine.session import Session
from localllm.store.registry import Registry
from localllm.types import AdapterRef, ModelRef


@dataclass
class Chat:
    """One conversation as a front end holds it."""

    engine: Engine
    session: Session
    model: ModelRef
    registry: Registry
    adapter: AdapterRef | None = None

    def send(self, text: str, cancel: threading.Event | None = None) -> Iterator[Event]:
        """Ask and yield the answer's events; see `Session.send`."""
        return self.session.send(text, cancel)

    def use_adapter(self, name: str | None) -> AdapterRef | None:
        """Attach the adapter of that name or path in place of the present one; None detaches.

        Raises AdapterNotFoundError, AdapterMismatchError and EngineError, the adapter in use staying attached.
        """
        adapter = None if name is None else self.registry.adapter_for(name, self.model)
        self.engine.set_adapters([(adapter.path, adapter.scale)] if adapter else [])
        self.adapter = adapter
        return adapter

    def close(self) -> None:
        self.engine.close()
