"""An engine in a child process: a crash in native code costs the requests on their way, and not the program.

The child (engine/worker_child.py) works on by itself and sends what happens; `step` here waits for that a moment. When
the child dies, the requests that it had begun fail, it is started again with the same settings, and those that were
still waiting are submitted anew. llama.cpp is never loaded into this process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from localllm.engine.base import Failed, Finished, ModelInfo, Request, StepEvent
from localllm.engine.worker_link import DiedError, Link
from localllm.engine.worker_messages import (
    Cancel,
    Detokenize,
    EncodeChat,
    Happened,
    Open,
    SetAdapters,
    Submit,
    Tokenize,
)
from localllm.errors import EngineCrashedError, EngineError, LocalLLMError
from localllm.types import Message

MAX_CRASHES = 3
"""Times in a row, without a finished request in between, that the child is started again."""
WAIT_SECONDS = 0.05
"""How long a step waits for something to happen, and so how late a caller may see its own cancel flag."""


@dataclass
class _Pending:
    """A request that has not finished."""

    request: Request
    submitted: float
    theirs: int | None = None
    """Its number in the child; None while it has to be submitted anew."""
    begun: bool = False
    """Something has been heard of it."""
    cancelled: bool = False


class WorkerEngine:
    """The Engine protocol over a child process. See `open`."""

    child: ClassVar[tuple[str, ...]] = ("localllm.engine.worker_child",)
    """The module that the child runs, and its arguments."""
    engine: ClassVar[str] = "llama.cpp"
    """What computes there."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        """Starts nothing yet; use `open` instead."""
        self._path, self._options = path, options
        self._link: Link | None = None
        self._info: ModelInfo | None = None
        self._adapters: tuple[tuple[Path, float], ...] = ()
        self._pending: dict[int, _Pending] = {}  # by our numbers, oldest first
        self._ours: dict[int, int] = {}  # our numbers by the child's
        self._events: deque[StepEvent] = deque()
        self._requests = self._crashes = 0
        self._died_of = ""
        self._closed = False

    @classmethod
    def open(cls, path: Path, n_ctx: int | None = None, n_threads: int | None = None, **options: Any) -> WorkerEngine:
        """Start a child and load a model in it, with the arguments of `LlamaEngine.open`.

        Raises what that raises, and EngineCrashedError.
        """
        engine = cls(path, {"n_ctx": n_ctx, "n_threads": n_threads, **options})
        try:
            engine._ready()
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def info(self) -> ModelInfo:
        assert self._info is not None
        return self._info

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._link.pid if self._link else None

    # The Engine protocol

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return list(self._call(Tokenize(text, add_special, parse_special), "turned text into tokens"))

    def detokenize(self, tokens: Sequence[int]) -> str:
        return str(self._call(Detokenize(tuple(tokens)), "turned tokens into text"))

    def encode_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: str = ""
    ) -> list[int]:
        body = EncodeChat(tuple(messages), add_generation_prompt, tools)
        return list(self._call(body, "turned the conversation into tokens"))

    def set_adapters(self, adapters: Sequence[tuple[Path, float]]) -> None:
        wanted = tuple((path, float(scale)) for path, scale in adapters)
        self._call(SetAdapters(wanted), "attached an adapter")
        self._adapters = wanted

    def submit(self, request: Request) -> int:
        pending = _Pending(request, time.monotonic())
        theirs = self._call(Submit(request), "took a request in")
        self._requests += 1
        self._begin(self._requests, pending, theirs)
        return self._requests

    def step(self) -> list[StepEvent]:
        """What has happened; after WAIT_SECONDS without anything an empty list, though requests are on their way."""
        if self._pending and not self._events:
            self._listen()
        events = list(self._events)
        self._events.clear()
        return events

    def cancel(self, request_id: int) -> None:
        pending, link = self._pending.get(request_id), self._link
        if pending is None or pending.cancelled:
            return
        pending.cancelled = True
        if link is not None and pending.theirs is not None:
            with suppress(DiedError):  # the next step finds out
                link.send(Cancel(pending.theirs))

    def close(self) -> None:
        self._closed = True
        self._pending.clear()
        if self._link is not None:
            self._link.close()
            self._link = None

    # The child

    def _call(self, body: Any, doing: str) -> Any:
        """Have the child do something and wait for the answer."""
        if self._link is not None and self._link.is_over():
            self._bury("")  # before it was asked
        link = self._ready()
        try:
            return link.ask(body, self._take)
        except DiedError:
            raise self._bury(doing) from None

    def _ready(self) -> Link:
        """A child with the model loaded, and what waits submitted. Raises LocalLLMError."""
        if self._closed:
            raise EngineError("The engine is closed.", "Open the model again.")
        if self._link is not None:
            return self._link
        if self._crashes > MAX_CRASHES:
            raise EngineCrashedError(
                f"The engine died {self._crashes} times in a row and is not started again; at last: {self._died_of}",
                "Fetch the model again or use another one, then start the program again.",
            )
        self._link = Link(*self.child, engine=self.engine)
        doing = f"loaded {self._path.name}"
        try:
            self._info = self._link.ask(Open(self._path, self._options), self._take)
            if self._adapters:
                doing = "attached an adapter"
                self._link.ask(SetAdapters(self._adapters), self._take)
            doing = "took a request in"
            for request_id, pending in list(self._pending.items()):
                self._submit_again(request_id, pending)
        except DiedError:
            raise self._bury(doing) from None
        except BaseException:
            self._link.close()
            self._link = None
            raise
        return self._link

    def _submit_again(self, request_id: int, pending: _Pending) -> None:
        assert self._link is not None
        request = pending.request
        if request.timeout is not None:
            left = request.timeout - (time.monotonic() - pending.submitted)
            request = replace(request, timeout=max(0.0, left))
        try:
            theirs = self._link.ask(Submit(request), self._take)
        except DiedError:
            pending.begun = True  # so that it is not what kills the next child
            raise
        except LocalLLMError as error:
            return self._fail(request_id, error)
        self._begin(request_id, pending, theirs)
        if pending.cancelled:
            self._link.send(Cancel(theirs))

    def _begin(self, request_id: int, pending: _Pending, theirs: int) -> None:
        pending.theirs = theirs
        self._pending[request_id] = pending
        self._ours[theirs] = request_id

    # What happens

    def _listen(self) -> None:
        """Take in what has happened, or wait a moment for it."""
        try:
            link = self._ready()
            message = link.receive(WAIT_SECONDS)
            while message is not None:
                if isinstance(message, Happened):
                    self._take(message)
                message = link.receive(0)
        except DiedError:
            self._bury("answered")
        except LocalLLMError as error:
            if isinstance(error, EngineCrashedError) and self._link is None and self._crashes <= MAX_CRASHES:
                return  # the next step tries again
            for request_id in list(self._pending):
                self._fail(request_id, error)

    def _take(self, message: Happened) -> None:
        for event in message.events:
            request_id = self._ours.get(event.request_id)
            if request_id is None:
                continue
            self._pending[request_id].begun = True
            if isinstance(event, Finished | Failed):
                del self._pending[request_id], self._ours[event.request_id]
            if isinstance(event, Finished):
                self._crashes = 0
            self._events.append(replace(event, request_id=request_id))

    def _bury(self, doing: str) -> EngineCrashedError:
        """The child is dead: let the requests that it had begun fail, and say why it died while `doing` something."""
        link, self._link = self._link, None
        assert link is not None
        with suppress(DiedError):
            while (message := link.receive(0)) is not None:
                if isinstance(message, Happened):
                    self._take(message)
        error = link.crash(doing)
        link.close()
        self._crashes, self._died_of = self._crashes + 1, error.message
        for request_id in self._in_flight():
            self._fail(request_id, error)
        self._ours.clear()
        for pending in self._pending.values():
            pending.theirs = None
        return error

    def _in_flight(self) -> list[int]:
        """The requests that were heard of, and of those submitted after them as many as there were slots for."""
        begun = [request_id for request_id, pending in self._pending.items() if pending.begun]
        others = [i for i, pending in self._pending.items() if not pending.begun and pending.theirs is not None]
        slots = self._info.n_slots if self._info else 1
        return begun + others[: max(0, slots - len(begun))]

    def _fail(self, request_id: int, error: LocalLLMError) -> None:
        del self._pending[request_id]
        self._events.append(Failed(request_id, error.message, error.hint))
