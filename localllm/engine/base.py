"""What every engine offers: requests in, events out.

Requests are submitted, then `step` is called until they have finished; each step does a bounded amount of work (a token
of every answer on its way and a chunk of prefill for the next ones) and returns what happened. `stream` wraps that for
the callers that want one answer, `stream_many` for those that want many.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from localllm.errors import EngineError, LocalLLMError
from localllm.types import FinishReason, Message, Sampling, Usage


@dataclass(frozen=True)
class ModelInfo:
    """What an engine knows about the model it has loaded."""

    path: Path
    name: str
    architecture: str
    n_ctx: int
    """Tokens that the context holds for each request: prompt and answer together."""
    n_ctx_train: int
    n_vocab: int
    n_params: int
    size_bytes: int
    has_template: bool
    n_slots: int = 1
    """Requests that are answered side by side; further ones wait."""


@dataclass(frozen=True)
class Request:
    """One answer to produce from tokens."""

    prompt: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    adapters: tuple[tuple[Path, float], ...] | None = None
    """GGUF LoRA adapters and their scales; None takes those of `set_adapters`."""
    timeout: float | None = None
    """Seconds from `submit` on after which the answer ends as it is, with the reason "deadline"."""
    lookup: bool = False
    """Whether to draft tokens by what the text so far says after the same words, for answers that repeat it. A
    greedy answer stays the same; it is faster only where it repeats much: the summaries of the built-in model, which do
    not, took a tenth longer. Requests that are not greedy take no notice."""


@dataclass(frozen=True)
class Prefilled:
    """A part of the prompt has been read: `done` of `total` tokens."""

    request_id: int
    done: int
    total: int


@dataclass(frozen=True)
class TextDelta:
    """New text of an answer; `text` may be empty while bytes of a character or of a stop sequence are held back."""

    request_id: int
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Finished:
    """The answer is complete."""

    request_id: int
    reason: FinishReason
    usage: Usage


@dataclass(frozen=True)
class Failed:
    """The answer could not be finished. It is the request's last event; other requests go on."""

    request_id: int
    message: str
    hint: str


Event = Prefilled | TextDelta | Finished
"""What happens to an answer that goes well."""
StepEvent = Event | Failed


class Engine(Protocol):
    """Inference on one loaded model. Not thread-safe: one thread at a time, except `cancel`.

    While that one is in `step`, another may turn text into tokens and back.
    """

    @property
    def info(self) -> ModelInfo: ...

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Token ids of `text`; `add_special` adds BOS/EOS where the model wants them, `parse_special` reads control
        tokens that are written out in the text."""
        ...

    def detokenize(self, tokens: Sequence[int]) -> str: ...

    def encode_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: str = ""
    ) -> list[int]:
        """Token ids of a conversation through the model's chat template; `tools` is a JSON list of functions.

        Raises TemplateError.
        """
        ...

    def set_adapters(self, adapters: Sequence[tuple[Path, float]]) -> None:
        """Attach exactly these GGUF LoRA adapters, each with its scale; an empty sequence detaches all."""
        ...

    def submit(self, request: Request) -> int:
        """Queue a request and return its id. Raises ContextOverflowError, GrammarError and AdapterError at once."""
        ...

    def step(self) -> list[StepEvent]:
        """Do the next piece of work for all requests; an empty list means that none is left."""
        ...

    def cancel(self, request_id: int) -> None:
        """Stop a request; safe from any thread. Its Finished event says "cancelled"."""
        ...

    def close(self) -> None: ...


def stream(engine: Engine, request: Request, cancel: threading.Event | None = None) -> Iterator[Event]:
    """Events of one request until it has finished; setting `cancel`, or closing the iterator, stops it.

    Raises EngineError where the request fails. Events of other requests are lost: see `stream_many`.
    """
    request_id = engine.submit(request)
    finished = False
    try:
        while not finished:
            if cancel is not None and cancel.is_set():
                engine.cancel(request_id)
            for event in engine.step():
                if event.request_id != request_id:
                    continue
                finished = isinstance(event, Finished | Failed)
                if isinstance(event, Failed):
                    raise EngineError(event.message, event.hint)
                yield event
    finally:
        if not finished:
            engine.cancel(request_id)
            engine.step()


def stream_many(
    engine: Engine, requests: Iterable[Request], cancel: threading.Event | None = None
) -> Iterator[tuple[int, StepEvent]]:
    """Events of many requests, each with the number of its request (from 0), in the order in which they happen.

    Requests are taken from the iterable as earlier ones finish, so there may be any number of them. One that cannot be
    submitted gives a Failed event and the others go on. Setting `cancel`, or closing the iterator, stops all.
    """
    numbers: dict[int, int] = {}  # of the requests on their way, by id
    waiting = enumerate(requests)
    # Some wait in the engine's queue, so that a slot that becomes free is used at the next step.
    most = 2 * engine.info.n_slots
    more = True
    try:
        while more or numbers:
            if cancel is not None and cancel.is_set():
                more = False
                for request_id in numbers:
                    engine.cancel(request_id)
            while more and len(numbers) < most:
                number, request = next(waiting, (-1, None))
                if request is None:
                    more = False
                    break
                try:
                    numbers[engine.submit(request)] = number
                except LocalLLMError as error:
                    yield number, Failed(0, error.message, error.hint)
            for event in engine.step() if numbers else ():
                at = numbers.get(event.request_id)
                if at is None:
                    continue
                if isinstance(event, Finished | Failed):
                    del numbers[event.request_id]
                yield at, event
    finally:
        for request_id in numbers:
            engine.cancel(request_id)
        if numbers:
            engine.step()
