"""A conversation on an engine: history, what a turn costs, and nothing dropped unsaid."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from localllm.engine.base import Engine, Event, Finished, Request, TextDelta, stream
from localllm.errors import ContextOverflowError, UsageError
from localllm.types import Message, Sampling

Adapters = tuple[tuple[Path, float], ...]


class Session:
    """The turns so far and the settings for the next one.

    A turn that fails leaves the history as it was; one that is stopped keeps the partial answer.
    """

    def __init__(self, engine: Engine, sampling: Sampling | None = None, system: str | None = None) -> None:
        self.engine = engine
        self.sampling = sampling or Sampling()
        self.system = system
        self.turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """The system prompt, if any, and all turns."""
        return [*([Message("system", self.system)] if self.system else []), *self.turns]

    def tokens_used(self) -> int:
        """Tokens that the conversation takes in the context as it stands."""
        return len(self.engine.encode_chat(self.messages, add_generation_prompt=False)) if self.messages else 0

    def clear(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns.clear()

    def send(self, text: str, cancel: threading.Event | None = None) -> Iterator[Event]:
        """Ask, and yield the answer's events. Raises ContextOverflowError before anything is decoded.

        The two turns are kept once the answer has finished or was stopped; after an error the history is unchanged.
        """
        question = Message("user", text)
        answer: list[str] = []
        events = self._stream(self.prompt([*self.messages, question]), None, cancel)
        try:
            for event in events:
                if isinstance(event, TextDelta):
                    answer.append(event.text)
                if isinstance(event, Finished):
                    self.turns += [question, Message("assistant", "".join(answer))]
                yield event
        finally:
            events.close()  # type: ignore[attr-defined]

    def answer(
        self, cancel: threading.Event | None = None, *, partial: str = "", adapters: Adapters | None = None
    ) -> Iterator[Event]:
        """Answer the turns as they are, and keep nothing; with `partial`, go on after that beginning of the answer.

        `adapters` takes the place of those that are attached. Raises ContextOverflowError before anything is decoded,
        and UsageError where a grammar would have to begin in the middle.
        """
        if partial and (self.sampling.grammar or self.sampling.json_schema):
            raise UsageError("A reply that must match a schema cannot be continued.", "Have it written again.")
        prompt = self.prompt(self.messages, partial)
        return self._stream(prompt, adapters, cancel)

    def prompt(self, messages: list[Message], partial: str = "") -> tuple[int, ...]:
        """Tokens of a conversation and of the beginning of its next answer. Raises ContextOverflowError."""
        tokens = self.engine.encode_chat(messages)
        if partial:
            tokens += self.engine.tokenize(partial, add_special=False, parse_special=False)
        n_ctx = self.engine.info.n_ctx
        if len(tokens) >= n_ctx:
            hint = "Start over with /clear, shorten the message, or restart with a larger --ctx."
            raise ContextOverflowError(len(tokens) + 1, n_ctx, "The conversation", hint)
        return tuple(tokens)

    def _stream(
        self, prompt: tuple[int, ...], adapters: Adapters | None, cancel: threading.Event | None
    ) -> Iterator[Event]:
        return stream(self.engine, Request(prompt, replace(self.sampling), adapters), cancel)
