"""A chat on the scripted engine, for driving the app without a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textual.app import App
from textual.pilot import Pilot

from localllm.engine.base import Event, TextDelta
from localllm.engine.fake import FakeEngine
from localllm.engine.session import Session
from localllm.errors import AdapterNotFoundError, EngineError, LocalLLMError, ModelNotFoundError
from localllm.paths import Home
from localllm.tasks.chat import Chat
from localllm.tasks.opening import Opened
from localllm.tui.app import LocalLLMApp
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.widgets.prompt import Prompt
from localllm.types import AdapterRef, ModelRef, Sampling


class StubRegistry:
    """Knows the adapters it is given."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.home = Home.locate()

    def adapters(self) -> list[AdapterRef]:
        return [AdapterRef(name, Path(f"/{name}.gguf")) for name in self.names]

    def adapter_for(self, name: str, model: ModelRef) -> AdapterRef:
        if name not in self.names:
            raise AdapterNotFoundError(f"There is no adapter named {name!r}.", "`localllm list` shows them.")
        return AdapterRef(name, Path(f"/{name}.gguf"))

    def models(self) -> list[ModelRef]:
        return [ModelRef("fake", Path("/fake.gguf"), "built-in"), ModelRef("other", Path("/other.gguf"), "home")]

    def manifest(self, adapter: AdapterRef) -> dict[str, Any]:
        return {}

    def pulled(self) -> list[Any]:
        return []

    def foreign(self) -> list[Any]:
        return []

    def model(self, name: str) -> ModelRef:
        if name not in ("fake", "guide", "other"):
            raise ModelNotFoundError(f"There is no model named {name!r}.", "`localllm list` shows them.")
        return ModelRef(name, Path("/fake.gguf" if name == "guide" else f"/{name}.gguf"), "home")


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
            time.sleep(self.delay)
            return [TextDelta(request_id, piece, (self._sent,))]
        return [self._finish(request, request_id, "stop")]


def scripted(*script: str | LocalLLMError | Callable[[str], str], **settings: Any) -> FakeEngine:
    return FakeEngine(script=script or ("Hello from the scripted engine.",), **settings)


def opener(
    engine: Any,
    *adapters: str,
    sampling: Sampling | None = None,
    name: str = "fake",
    title: str = "The fake",
    beside: Any = None,
    source: Any = "home",
) -> Callable[[], Any]:
    """An open_chat for LocalLLMApp; `beside` is the engine that is opened for any model from then on. Questions to a
    model whose `source` is "built-in" are looked up in the handbook."""
    model = ModelRef(name, Path("/fake.gguf"), source, title, "A scripted model for tests.")
    registry: Any = StubRegistry(*adapters)

    def reopen(again: str, adapter: str | None, force: bool = False) -> Opened:
        used = registry.adapter_for(adapter, model) if adapter else None
        return Opened(beside, ModelRef(again, Path(f"/{again}.gguf"), "home", again), used)

    chat = Chat(engine, Session(engine, sampling), model, registry, None, reopen)
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


async def until(pilot: Pilot[Any], condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Let the app run until something is so; fail when it does not become so."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            await pilot.pause()
            return
        await pilot.pause(0.01)
    raise AssertionError("it did not happen in time")


def branch(app: LocalLLMApp) -> list[tuple[str, str, str]]:
    """(role, content, state) of the conversation that is shown, as it is stored."""
    screen = chat_screen(app)
    assert screen.state is not None
    turns = [] if screen.state.chat is None else app.store.turns.branch(screen.state.chat)
    return [(turn.role, turn.content, turn.state) for turn in turns]


def chat_screen(app: LocalLLMApp) -> ChatScreen:
    screen = app.screen_stack[0]
    assert isinstance(screen, ChatScreen)
    return screen


async def ready(pilot: Pilot[Any]) -> ChatScreen:
    """Wait until the model is open and nothing is under way."""
    screen = chat_screen(pilot.app)  # type: ignore[arg-type]
    await until(pilot, lambda: screen.state is not None and not screen.busy)
    return screen


async def say(pilot: Pilot[Any], text: str) -> ChatScreen:
    """Type a text, send it, and wait until the app is ready again."""
    await type_in(pilot, text)
    return await ready(pilot)


async def type_in(pilot: Pilot[Any], text: str) -> None:
    """Put a text into the input, and press Enter."""
    chat_screen(pilot.app).query_one(Prompt).insert(text)  # type: ignore[arg-type]
    await pilot.press("enter")
    await pilot.pause()


def shown(app: App[Any]) -> str:
    """The characters on the screen, as they would go to the terminal: after all line filters."""
    height = app.size.height
    lines = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines[:height])
