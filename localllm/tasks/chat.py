"""Chat: a model, an adapter that can be switched in the middle, and the conversation between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from localllm.engine.base import Engine, Event
from localllm.engine.session import Session
from localllm.engine.template import no_template
from localllm.errors import EngineError
from localllm.store.registry import Registry
from localllm.tasks.choosing import fits_beside
from localllm.tasks.opening import Opened, adapter_for, attachments, open_model
from localllm.types import AdapterRef, ModelRef, Sampling


class Reopen(Protocol):
    """Opens a model by its name, with an adapter; True as the last also where memory seems too small."""

    def __call__(self, name: str, adapter: str | None, force: bool = ..., /) -> Opened: ...


@dataclass
class Chat:
    """One conversation as a front end holds it."""

    engine: Engine
    session: Session
    model: ModelRef
    registry: Registry
    adapter: AdapterRef | None = None
    reopen: Reopen | None = None
    """Opens a model and an adapter with the settings that this one was opened with."""
    sampling_for: Callable[[ModelRef], Sampling] | None = None
    """What a model is sampled with, where the person sets nothing else."""
    handbook: bool | None = None
    """Whether questions are looked up in the handbook, where a conversation does not say; None: as the model needs."""

    @property
    def author(self) -> str:
        """Who writes the replies."""
        return author(self.model, self.adapter)

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

    def find_adapter(self, name: str) -> AdapterRef:
        """The adapter of that name, if it was made for this model. Raises AdapterError."""
        return adapter_for(self.registry, name, self.model)

    def use_model(self, name: str, adapter: str | None = None) -> None:
        """Open another model in place of this one, with that adapter or none; the conversation goes on.

        Where memory does not hold both, this one is closed first. Raises ModelError, AdapterError, EngineError,
        TemplateError; this one is then in use as before.
        """
        assert self.reopen is not None
        found = self.registry.model(name)
        old, old_adapter = self.model, self.adapter
        both = fits_beside(found, self.engine.info.n_ctx)
        if not both:
            self.engine.close()
        try:
            opened = _for_chat(self.reopen(str(found.path) if found.source == "path" else found.name, adapter))
        except BaseException:
            if not both:
                before = self.reopen(_name(old), old_adapter.name if old_adapter else None, True)
                self._take(before)
            raise
        if both:
            self.engine.close()
        self._take(opened)

    def _take(self, opened: Opened) -> None:
        self.engine = self.session.engine = opened.engine
        self.model, self.adapter = opened.model, opened.adapter

    def open_beside(self) -> Engine:
        """The same model once more, for a second reply at the same time; its weights are shared through the system.

        Raises EngineError where memory does not hold it, and what opening raises.
        """
        assert self.reopen is not None
        if not fits_beside(self.model, self.engine.info.n_ctx):
            raise EngineError(
                "There is not enough memory for a second reply beside the first.", "Use a smaller --ctx or model."
            )
        return self.reopen(_name(self.model), None, True).engine

    def close(self) -> None:
        self.engine.close()


def author(model: ModelRef, adapter: AdapterRef | None) -> str:
    """Who writes the replies of a model with an adapter."""
    return f"{model.name} + adapter {adapter.name}" if adapter else model.name


def open_chat(
    registry: Registry,
    model: str,
    adapter: str | None = None,
    *,
    sampling: Sampling | None = None,
    sampling_for: Callable[[ModelRef], Sampling] | None = None,
    system: str | None = None,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    template: str | None = None,
    force: bool = False,
    handbook: bool | None = None,
) -> Chat:
    """Load a model in a child process, so that a crash in it leaves the conversation, and begin one.

    `sampling` is for this model, and what `sampling_for` gives for one that is switched to. `force` holds for this
    model and for those that are opened later in its place. Raises what `open_model` raises, and TemplateError for a
    file that can only continue text.
    """

    def opening(name: str, adapter: str | None, force: bool = force) -> Opened:
        return open_model(
            registry, name, adapter, n_ctx=n_ctx, n_threads=n_threads, template=template, worker=True, force=force
        )

    opened = _for_chat(opening(model, adapter))
    session = Session(opened.engine, sampling, opened.model.system or None if system is None else system)
    return Chat(opened.engine, session, opened.model, registry, opened.adapter, opening, sampling_for, handbook)


def _for_chat(opened: Opened) -> Opened:
    if not opened.engine.info.has_template:
        opened.engine.close()
        raise no_template(opened.model.path)
    return opened


def _name(model: ModelRef) -> str:
    return str(model.path) if model.source == "path" else model.name
