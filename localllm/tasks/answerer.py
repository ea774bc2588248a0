"""What answers requests that are written as OpenAI's API has them: the engine on this machine, or a server."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"


@dataclass(frozen=True)
class Question:
    """One request: `body` is what a client of OpenAI's would send to `url`."""

    url: str
    body: dict[str, Any]
    id: str
    """A digest that names the request; what the answer is called is made of it, so that it is the same every time."""


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer."""

    code: str
    message: str


@dataclass(frozen=True)
class Reply:
    """An answer or a refusal, with the HTTP status of it; None for a refusal that did not come from a server."""

    status: int | None
    body: dict[str, Any] | None
    refusal: Refusal | None = None

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of the prompt and of the answer, as far as the answer says."""
        usage = (self.body or {}).get("usage") if not self.refusal else None
        if not isinstance(usage, dict):
            return 0, 0
        counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
        prompt, answer = (count if isinstance(count, int) else 0 for count in counts)
        return prompt, answer


class Answerer(Protocol):
    """Answers any number of requests, several side by side."""

    @property
    def name(self) -> str:
        """Who answers, as it is said to a person."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Everything about the one who answers that decides what is answered."""
        ...

    def answer(
        self, questions: Iterable[Question], cancel: threading.Event | None = None
    ) -> Iterator[tuple[Question, Reply]]:
        """Each request with its reply, as they finish; requests are taken as there is room for them.

        Once `cancel` is set nothing more comes, and what was on its way is dropped. Raises EngineError where no
        further request can be answered.
        """
        ...

    def close(self) -> None: ...
