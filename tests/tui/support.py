"""A chat on the scripted engine, for driving the app without a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from localllm.engine.base import Event, Request, TextDelta
from localllm.engine.fake import FakeEngine
from localllm.engine.session import Session
from localllm.errors import AdapterNotFoundError, EngineError, LocalLLMError
from localllm.types import AdapterRef, ModelRef, Sampling


class StubRegistry:
    """Knows the adapters it is given."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def adapters(self) -> list[AdapterRef]:
        return [AdapterRef(name, Path(f"/{name}.gguf")) for name in self.names]

    def adapter_for(self, name: str, model: ModelRef) -> AdapterRef:
        if name not in self.names:
            raise AdapterNotFoundError(f"There is no adapter named {name!r}.", "`localllm list` shows them.")
        return AdapterRef(name, Path(f"/{name}.gguf"))


@dataclass
class StubChat:
    """tasks.chat.Chat by shape; the real one is tested in tests/tasks."""

    engine: Any
    session: Session
    model: ModelRef
    registry: StubRegistry
    adapter: AdapterRef | None = None

    def send(self, text: str, cancel: threading.Event | None = None) -> Any:
        return self.session.send(text, cancel)

    def use_adapter(self, name: str | None) -> AdapterRef | None:
        adapter = None if name is None else self.registry.adapter_for(name, self.model)
        self.engine.set_adapters([(adapter.path, adapter.scale)] if adapter else [])
        self.adapter = adapter
        return adapter

    def close(self) -> None:
        self.engine.close()


@dataclass
class StreamEngine(FakeEngine):
    """Emits `pieces` as they are given, waits at each `gate`, and raises an exception where it finds one."""

    pieces: Sequence[str | Exception | threading.Event] = ()
    _at: int = field(default=0)

    def _next_answer(self, prompt: str) -> str:
        self._at = 0
        return super()._next_answer(prompt)

    def step(self) -> list[Event]:
        if self._pending is None or not self.pieces or self._queue[0][0] in self._cancelled:
            return super().step()
        request_id, request = self._queue[0]
        while self._at < len(self.pieces):
            piece = self.pieces[self._at]
            if isinstance(piece, threading.Event):
                if not piece.wait(0.01):
                    return [TextDelta(request_id, "", ())]
                self._at += 1
                continue
            self._at += 1
            if isinstance(piece, Exception):
                self._queue.popleft()
                self._pending = None
                raise piece
            self._sent += 1
            return [TextDelta(request_id, piece, (self._sent,))]
        return [self._finish(request, request_id, "stop")]


def scripted(*script: str | LocalLLMError | Callable[[str], str], **settings: Any) -> FakeEngine:
    return FakeEngine(script=script or ("Hello from the scripted engine.",), **settings)


def opener(engine: Any, *adapters: str, sampling: Sampling | None = None, title: str = "Fake") -> Callable[[], Any]:
    """An open_chat for LocalLLMApp."""
    model = ModelRef("fake", Path("/fake.gguf"), "built-in", title, "A scripted model for tests.")
    chat = StubChat(engine, Session(engine, sampling), model, StubRegistry(*adapters))
    return lambda: chat


class Ticks:
    """A clock that goes on by `step` each time it is read."""

    def __init__(self, step: float = 0.01) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def broken(message: str = "The device was lost.") -> EngineError:
    return EngineError(message, "Send the message again.")


__all__ = ["SimpleNamespace", "StreamEngine", "StubChat", "Ticks", "broken", "opener", "scripted"]
