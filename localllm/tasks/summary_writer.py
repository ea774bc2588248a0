"""Who writes the answers for summaries: an engine on this machine, or a server (summary_endpoint.py)."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from localllm.engine.base import Engine, Request, StepEvent, stream
from localllm.errors import EngineCrashedError, GrammarError
from localllm.types import Message, Sampling


class Writer(Protocol):
    """Answers prompts, several side by side; each prompt is the user's only turn."""

    @property
    def n_ctx(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        ...

    @property
    def n_slots(self) -> int:
        """Prompts that are answered side by side; further ones wait."""
        ...

    @property
    def entangled(self) -> bool:
        """Whether an answer may fail because of another one on its way."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text, or more than it has where they cannot be counted."""
        ...

    def count_prompt(self, prompt: str) -> int:
        """The same for a prompt, with all that the chat template writes around it. Raises TemplateError."""
        ...

    def check(self, sampling: Sampling) -> None:
        """Raises GrammarError for a grammar or schema that cannot be used."""
        ...

    def submit(self, prompt: str, sampling: Sampling, timeout: float | None) -> int:
        """Queue a prompt and return its id; after `timeout` seconds its answer ends with the reason "deadline".

        Raises LocalLLMError.
        """
        ...

    def step(self) -> list[StepEvent]:
        """What has happened, perhaps after a short wait."""
        ...

    def cancel(self, request_id: int) -> None:
        """Stop an answer; its Finished event says "cancelled"."""
        ...


class EngineWriter:
    """See `Writer`."""

    entangled = True
    """What kills an engine kills all that it was at."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def n_ctx(self) -> int:
        return self._engine.info.n_ctx

    @property
    def n_slots(self) -> int:
        return self._engine.info.n_slots

    def count(self, text: str) -> int:
        return len(self._engine.tokenize(text, add_special=False, parse_special=False))

    def count_prompt(self, prompt: str) -> int:
        return len(self._encode(prompt))

    def check(self, sampling: Sampling) -> None:
        """Raises GrammarError also for one that llama.cpp dies of."""
        if sampling.json_schema is None and sampling.grammar is None:
            return
        try:
            for _ in stream(self._engine, Request(tuple(self._encode("?")), replace(sampling, max_tokens=1))):
                pass
        except EngineCrashedError as error:
            raise GrammarError(
                f"llama.cpp cannot compile the schema: {error.message}", "Use a simpler schema."
            ) from error

    def submit(self, prompt: str, sampling: Sampling, timeout: float | None) -> int:
        return self._engine.submit(Request(tuple(self._encode(prompt)), sampling, timeout=timeout))

    def step(self) -> list[StepEvent]:
        return self._engine.step()

    def cancel(self, request_id: int) -> None:
        self._engine.cancel(request_id)

    def _encode(self, prompt: str) -> list[int]:
        return self._engine.encode_chat([Message("user", prompt)])
