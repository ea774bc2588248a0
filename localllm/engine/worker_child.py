"""The child of engine/worker.py: `python -m localllm.engine.worker_child` runs an engine for what its input asks.

One thread reads the input, so that a request is cancelled in the middle of a step and the process ends as soon as its
parent does. Another turns text into tokens and back, which needs the vocabulary alone and does not wait for a step that
may take seconds. The main thread uses the engine, and answers all other calls between two steps.
"""

from __future__ import annotations

import os
import queue
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from localllm.engine import wire
from localllm.engine.base import Engine, Failed, Finished, StepEvent, TextDelta
from localllm.engine.worker_messages import (
    Answer,
    Call,
    Cancel,
    Detokenize,
    Embed,
    Embedded,
    EncodeChat,
    FromChild,
    Happened,
    Open,
    OpenEmbedder,
    Refusal,
    SetAdapters,
    Submit,
    ToChild,
    Tokenize,
)
from localllm.errors import EngineError, LocalLLMError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from localllm.engine.embedding import Embedder

FLUSH_SECONDS = 0.03
"""Fast tokens are sent together, faster than anybody reads: each message takes a processor from the computation."""
PATIENCE, MOST_PATIENCE = 0.02, 0.01
"""Share of a step, and seconds, to wait for a further call after one was answered: who has many requests submits them
one after the other, and a batch with more of them is computed faster."""
_TEXT = (Tokenize, Detokenize, EncodeChat)


class Embeds(Protocol):
    """What makes vectors of texts."""

    def tokenize(self, text: str) -> list[int]: ...

    def embed(self, tokens: Sequence[int]) -> NDArray[np.float32]: ...


class Child:
    """Answers calls and steps the engine, writing messages to `out`."""

    def __init__(
        self, out: int, opener: Callable[[Open], Engine], open_embedder: Callable[[OpenEmbedder], Embeds]
    ) -> None:
        self._out, self._open, self._open_embedder = out, opener, open_embedder
        self._calls: queue.SimpleQueue[Call | bytes] = queue.SimpleQueue()
        self._texts: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self.engine: Engine | None = None
        self._embedder: Embeds | None = None
        self._active: dict[int, bool] = {}  # requests that have not finished, oldest first, and whether they write yet
        self._cancelled: set[int] = set()
        self._events: list[StepEvent] = []
        self._sent = self._step_seconds = 0.0

    def run(self) -> None:
        while True:
            self._answer_all()
            if self._active:
                self._step()

    def cancel(self, request_id: int) -> None:
        """From any thread."""
        if self.engine is not None:
            self._cancelled.add(request_id)
            self.engine.cancel(request_id)

    # Calls

    def take(self, call: Call | bytes) -> None:
        """From the thread that reads: hand a call on to the one that answers it."""
        if isinstance(call, Call) and isinstance(call.body, _TEXT):
            self._texts.put(call)
        else:
            self._calls.put(call)

    def answer_texts(self) -> None:
        """In a thread of its own, for ever."""
        while True:
            self._reply(self._answer(self._texts.get()))

    def _answer_all(self) -> None:
        """Answer the calls that are there; wait for one when there is nothing else to do."""
        patience = 0.0
        while True:
            try:
                call = self._calls.get(timeout=patience if self._active else None)
            except queue.Empty:
                return
            answer = self._answer(call)
            if self._events:  # what has happened comes first
                self._flush()
            self._reply(answer)
            patience = min(MOST_PATIENCE, PATIENCE * self._step_seconds)

    def _answer(self, call: Call | bytes) -> Answer | Refusal:
        if isinstance(call, bytes):
            return Refusal.of(0, EngineError(f"The engine cannot read {call[:80]!r}."))
        try:
            return Answer(call.number, self._do(call.body))
        except LocalLLMError as error:
            return Refusal.of(call.number, error)
        except Exception as error:
            traceback.print_exc()
            return Refusal.of(call.number, _unexpected(error))

    def _do(self, body: Any) -> Any:
        """The answer; a list comes as a tuple."""
        if isinstance(body, Open):
            self.engine = self._open(body)
            return self.engine.info
        if isinstance(body, OpenEmbedder):
            self._embedder = self._open_embedder(body)
            return None
        if isinstance(body, Embed):
            return self._embed(body.text)
        engine = self._opened()
        match body:
            case Tokenize(text, add_special, parse_special):
                return engine.tokenize(text, add_special=add_special, parse_special=parse_special)
            case Detokenize(tokens):
                return engine.detokenize(tokens)
            case EncodeChat(messages, add_generation_prompt, tools):
                return engine.encode_chat(messages, add_generation_prompt=add_generation_prompt, tools=tools)
            case SetAdapters(adapters):
                while self._cancelled & self._active.keys():  # they are on their way out
                    self._step()
                return engine.set_adapters(adapters)
            case Submit(request):
                request_id = engine.submit(request)
                self._active[request_id] = False
                return request_id

    def _embed(self, text: str | tuple[int, ...]) -> Embedded:
        if self._embedder is None:
            raise EngineError("The engine has no model for embeddings yet.")
        tokens = self._embedder.tokenize(text) if isinstance(text, str) else text
        return Embedded(tuple(self._embedder.embed(tokens).tolist()), len(tokens))

    def _opened(self) -> Engine:
        if self.engine is None:
            raise EngineError("The engine has no model yet.")
        return self.engine

    # Steps

    def _step(self) -> None:
        started = time.perf_counter()
        try:
            events = self._opened().step()
        except Exception as error:  # an engine that drops the request it was at, and goes on
            events = [self._failed(error)]
        if not events:
            self._active.clear()
        soon = False
        for event in events:
            if isinstance(event, Finished | Failed):
                self._active.pop(event.request_id, None)
                self._cancelled.discard(event.request_id)
                soon = True
            elif isinstance(event, TextDelta) and event.request_id in self._active:
                soon |= not self._active[event.request_id]
                self._active[event.request_id] = True
        self._events += events
        now = time.perf_counter()
        self._step_seconds = now - started
        # While a prompt is being read a step takes long, so that nothing is kept back for the next.
        if soon or now - self._sent >= FLUSH_SECONDS or not all(self._active.values()):
            self._sent = now
            self._flush()

    def _failed(self, error: Exception) -> Failed:
        if not isinstance(error, LocalLLMError):
            traceback.print_exc()
            error = _unexpected(error)
        oldest = next(iter(self._active))
        self._opened().cancel(oldest)
        return Failed(oldest, error.message, error.hint)

    def _flush(self) -> None:
        events, self._events = self._events, []
        with self._writing:
            self._write(Happened(tuple(events)))

    def _reply(self, message: Answer | Refusal) -> None:
        with self._writing:
            try:
                self._write(message)
            except LocalLLMError as error:  # too long
                self._write(Refusal.of(message.number, error))

    def _write(self, message: FromChild) -> None:
        rest = memoryview(wire.encode(message))
        while rest:
            rest = rest[os.write(self._out, rest) :]


def _open(body: Open) -> Engine:
    from localllm.engine.llama import LlamaEngine

    _pass_on_complaints()
    return LlamaEngine.open(body.path, **body.options)


def _open_embedder(body: OpenEmbedder) -> Embedder:
    from localllm.engine.embedding import Embedder

    _pass_on_complaints()
    return Embedder.open(body.path, adapters=body.adapters, **body.options)


def _pass_on_complaints() -> None:
    """What llama.cpp says goes into the file that is looked at after a crash."""
    from localllm.engine.native import pass_on_complaints

    pass_on_complaints(lambda line: sys.stderr.write(f"{line}\n"))


def _unexpected(error: Exception) -> EngineError:
    return EngineError(f"The engine failed: {type(error).__name__}: {error}.", "Please report this.")


def read_calls(child: Child, source: int) -> None:
    """Pass on what comes in, to its end, which is the end of the parent: then end the process."""
    buffer = bytearray()
    while data := os.read(source, 1 << 20):
        *lines, rest = data.split(b"\n")
        for line in lines:
            _pass_on(child, bytes(buffer + line))
            buffer.clear()
        buffer += rest
        if len(buffer) > wire.MAX_BYTES:
            break
    os._exit(0)


def _pass_on(child: Child, line: bytes) -> None:
    try:
        message: ToChild = wire.decode(line, ToChild)
    except ValueError:
        child.take(line)
        return
    if isinstance(message, Cancel):
        child.cancel(message.request_id)
    else:
        child.take(message)


def main(
    opener: Callable[[Open], Engine] = _open, open_embedder: Callable[[OpenEmbedder], Embeds] = _open_embedder
) -> None:
    """Serve until the input ends; the openers load the model that is asked for."""
    out = os.dup(1)
    os.dup2(2, 1)  # what native code prints is no message
    # A crash is told in one line; a dump of gigabytes would only hold it up.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    child = Child(out, opener, open_embedder)
    threading.Thread(target=read_calls, args=(child, 0), daemon=True).start()
    threading.Thread(target=child.answer_texts, daemon=True).start()
    child.run()


if __name__ == "__main__":
    main()
