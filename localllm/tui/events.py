"""What the engine's thread tells the screen. Every event is posted, so widgets never wait for the engine."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from localllm.errors import LocalLLMError
from localllm.types import FinishReason, Usage


@dataclass(frozen=True)
class ChatState:
    """The facts that the screen shows about the chat, cleaned for display."""

    model: str
    """Its short name."""
    title: str
    description: str
    parameters: int
    n_ctx: int
    context_used: int
    adapter: str | None = None
    adapters: tuple[str, ...] = ()
    """Names of the adapters on this machine."""
    system: str | None = None


@dataclass
class Opened(Message):
    """The model is loaded."""

    state: ChatState


@dataclass
class OpenFailed(Message):
    """The model cannot be opened; the app ends with this error."""

    error: BaseException


@dataclass
class Changed(Message):
    """A setting was changed; `note` says what, for the transcript."""

    state: ChatState
    note: str


@dataclass
class ActionFailed(Message):
    """A setting could not be changed; the old one is in force."""

    error: LocalLLMError


@dataclass
class ReplyProgress(Message):
    """What came in since the last one: part of the prompt was read, or text was written."""

    text: str = ""
    prompt_done: int = 0
    prompt_total: int = 0
    tokens: int = 0
    tokens_per_second: float = 0.0


@dataclass
class ReplyFinished(Message):
    """The reply is complete, or was stopped, and is part of the conversation."""

    reason: FinishReason
    usage: Usage
    state: ChatState


@dataclass
class ReplyFailed(Message):
    """The reply broke off; the conversation is what it was before."""

    error: LocalLLMError
