"""What every engine offers: requests in, events out.

A request is submitted, then `step` is called until it has finished; each step does a bounded amount of work (a chunk of
prefill or one decode) and returns what happened. `stream` wraps that for the callers that want one answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from localllm.types import FinishReason, Message, Sampling, Usage


@dataclass(frozen=True)
class ModelInfo:
    """What an engine knows about the model it has loaded."""

    path: Path
    name: str
    architecture: str
    n_ctx: int
    """Tokens that the context holds: prompt and answer together."""
    n_ctx_train: int
    n_vocab: int
    n_params: int
    size_bytes: int
    has_template: bool


@dataclass(frozen=True)
class Request:
    """One answer to produce from tokens."""

    prompt: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)


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


Event = Prefilled | TextDelta | Finished


class Engine(Protocol):
    """Inference on one loaded model. Not thread-safe: one thread at a time, except `cancel`."""

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
        """Queue a request and return its id. Raises ContextOverflowError and GrammarError at once."""
        ...

    def step(self) -> list[Event]:
        """Do the next piece of work; an empty list means that nothing is queued."""
        ...

    def cancel(self, request_id: int) -> None:
        """Stop a request; safe from any thread. Its Finished event says "cancelled"."""
        ...

    def close(self) -> None: ...


def stream(engine: Engine, request: Request, cancel: threading.Event | None = None) -> Iterator[Event]:
    """Events of one request until it has finished; setting `cancel`, or closing the iterator, stops it."""
    request_id = engine.submit(request)
    finished = False
    try:
        while not finished:
            if cancel is not None and cancel.is_set():
                engine.cancel(request_id)
            for event in engine.step():
                if event.request_id != request_id:
                    continue
                finished = isinstance(event, Finished)
                yield event
    finally:
        if not finished:
            engine.cancel(request_id)
            engine.step()
