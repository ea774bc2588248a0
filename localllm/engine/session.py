"""A conversation on an engine: history, what a turn costs, and nothing dropped unsaid."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

from localllm.engine.base import Engine, Event, Finished, Request, TextDelta, stream
from localllm.errors import ContextOverflowError
from localllm.types import Message, Sampling


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
        prompt = self.engine.encode_chat([*self.messages, question])
        n_ctx = self.engine.info.n_ctx
        if len(prompt) >= n_ctx:
            hint = "Start over with /clear, shorten the message, or restart with a larger --ctx."
            raise ContextOverflowError(len(prompt) + 1, n_ctx, "The conversation", hint)
        answer: list[str] = []
        events = stream(self.engine, Request(tuple(prompt), replace(self.sampling)), cancel)
        try:
            for event in events:
                if isinstance(event, TextDelta):
                    answer.append(event.text)
                if isinstance(event, Finished):
                    self.turns += [question, Message("assistant", "".join(answer))]
                yield event
        finally:
            events.close()  # type: ignore[attr-defined]
