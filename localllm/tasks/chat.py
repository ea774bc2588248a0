"""Chat: a model, an adapter that can be switched in the middle, and the conversation between them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from localllm.engine.base import Engine, Event
from localllm.engine.session import Session
from localllm.engine.template import no_template
from localllm.store.registry import Registry
from localllm.tasks.opening import adapter_for, attachments, open_model
from localllm.types import AdapterRef, ModelRef, Sampling


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
        adapter = None if name is None else adapter_for(self.registry, name, self.model)
        self.engine.set_adapters(attachments(self.model, adapter))
        self.adapter = adapter
        return adapter

    def close(self) -> None:
        self.engine.close()


def open_chat(
    registry: Registry,
    model: str,
    adapter: str | None = None,
    *,
    sampling: Sampling | None = None,
    system: str | None = None,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    template: str | None = None,
) -> Chat:
    """Load a model in a child process, so that a crash in it leaves the conversation, and begin one.

    Raises what `open_model` raises, and TemplateError for a file that can only continue text.
    """
    opened = open_model(registry, model, adapter, n_ctx=n_ctx, n_threads=n_threads, template=template, worker=True)
    if not opened.engine.info.has_template:
        opened.engine.close()
        raise no_template(opened.model.path)
    session = Session(opened.engine, sampling, opened.model.system or None if system is None else system)
    return Chat(opened.engine, session, opened.model, registry, opened.adapter)
