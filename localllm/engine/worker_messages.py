"""What the parent of an engine's child process can say, and what it can hear."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm import errors
from localllm.engine.base import ModelInfo, Request, StepEvent
from localllm.errors import EngineError, LocalLLMError
from localllm.types import Message


@dataclass(frozen=True)
class Open:
    """Load a model, with the arguments of LlamaEngine.open. Answered with its ModelInfo; comes first."""

    path: Path
    options: dict[str, Any]


@dataclass(frozen=True)
class Tokenize:
    text: str
    add_special: bool
    parse_special: bool


@dataclass(frozen=True)
class Detokenize:
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class EncodeChat:
    messages: tuple[Message, ...]
    add_generation_prompt: bool
    tools: str


@dataclass(frozen=True)
class SetAdapters:
    adapters: tuple[tuple[Path, float], ...]


@dataclass(frozen=True)
class Submit:
    """Answered with the request's number in the child, before any event of it."""

    request: Request


@dataclass(frozen=True)
class OpenEmbedder:
    """Load a model for embeddings instead, with the arguments of Embedder.open. Answered with nothing; comes first."""

    path: Path
    options: dict[str, Any]
    adapters: tuple[tuple[Path, float], ...]


@dataclass(frozen=True)
class Embed:
    """Answered with Embedded."""

    text: str | tuple[int, ...]


@dataclass(frozen=True)
class Embedded:
    vector: tuple[float, ...]
    n_tokens: int


@dataclass(frozen=True)
class Call:
    """Something to do, answered with the same number: calls in their order, between two steps of the engine, but for
    those that only turn text into tokens or back, which are answered at once."""

    number: int
    body: Open | Tokenize | Detokenize | EncodeChat | SetAdapters | Submit | OpenEmbedder | Embed


@dataclass(frozen=True)
class Cancel:
    """Stop a request; obeyed at once, in the middle of a step too. Not answered."""

    request_id: int


ToChild = Call | Cancel


@dataclass(frozen=True)
class Answer:
    number: int
    value: ModelInfo | Embedded | tuple[int, ...] | int | str | None


@dataclass(frozen=True)
class Refusal:
    """A call that failed with an error of ours; with the number 0, one that could not be read."""

    number: int
    kind: str
    """Name of its class."""
    message: str
    hint: str
    facts: dict[str, int | float | str | None]
    """What else the error holds, such as how many tokens were needed; a path comes as text."""

    @classmethod
    def of(cls, number: int, error: LocalLLMError) -> Refusal:
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in vars(error).items()}
        facts = {name: value for name, value in plain.items() if name not in ("message", "hint")}
        return cls(number, type(error).__name__, error.message, error.hint, facts)

    def error(self) -> LocalLLMError:
        """The error anew, of its own class; EngineError if that is none of ours."""
        kind = getattr(errors, self.kind, None)
        if not (isinstance(kind, type) and issubclass(kind, LocalLLMError)):
            kind = EngineError
        error = kind.__new__(kind)
        LocalLLMError.__init__(error, self.message, self.hint)
        vars(error).update(self.facts)
        return error


@dataclass(frozen=True)
class Happened:
    """Events of requests under the child's numbers for them, in order."""

    events: tuple[StepEvent, ...]


FromChild = Answer | Refusal | Happened
