"""What the engine's thread tells the screen. Every event is posted, so widgets never wait for the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

from textual.message import Message

from localllm.errors import LocalLLMError
from localllm.store.chats.records import ChatSettings, Turn
from localllm.tasks.replying import Replied
from localllm.tui.work.job import Job
from localllm.types import Sampling


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
    compared: str | None = None
    """The adapter that replies are compared with, beside the base's."""
    chat: int | None = None
    """The conversation; None for one of which nothing was said yet."""
    chat_title: str = ""
    pinned: bool = False
    settings: ChatSettings = field(default_factory=ChatSettings)
    """As they are saved, not cleaned."""
    sampling: Sampling = field(default_factory=Sampling)
    """What is in force: the conversation's own, or the program's."""
    left_out: int = 0
    """Turns at the beginning that are not sent to the model."""
    saved: bool = True
    """Whether conversations outlast the program."""
    handbook: bool = False
    """Whether questions are looked up in the handbook first."""

    @property
    def system(self) -> str | None:
        return self.settings.system


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
class Loaded(Message):
    """Another conversation, or another branch of it, is to be shown."""

    state: ChatState
    branch: list[Turn]
    note: str = ""
    give_back: str = ""
    """A message that was not sent, for the input."""
    focus: int | None = None
    """The turn to scroll to; None for the end."""


@dataclass
class Counted(Message):
    """What the conversation that was loaded last takes of the context, in tokens."""

    context_used: int


@dataclass
class ActionFailed(Message):
    """A setting could not be changed; the old one is in force."""

    error: LocalLLMError


@dataclass
class ReplyBegun(Message):
    """Something is on its way: the question (None for one that is shown already), and its replies, side by side."""

    state: ChatState
    question: Turn | None
    replies: tuple[Turn, ...]
    """Replaces what is shown below the question."""


@dataclass
class ReplyProgress(Message):
    """What came in since the last one: part of the prompt was read, or text was written."""

    text: str = ""
    prompt_done: int = 0
    prompt_total: int = 0
    tokens: int = 0
    tokens_per_second: float = 0.0
    lane: int = 0
    """Which of the replies side by side."""


@dataclass
class ReplyEnded(Message):
    """One reply is complete, or was stopped; another beside it may go on."""

    replied: Replied
    lane: int


@dataclass
class ReplyFinished(Message):
    """All replies have ended, and the engine is free."""

    state: ChatState
    warning: LocalLLMError | None = None


@dataclass
class ReplyFailed(Message):
    """The reply broke off. What there was of it is kept as a cut reply; without any text, `text` is the question, which
    is no longer part of the conversation."""

    error: LocalLLMError
    state: ChatState | None
    kept: bool
    text: str = ""


@dataclass
class ContextFull(Message):
    """A question does not fit with what went before. It waits for the person to choose what to leave out."""

    state: ChatState
    needed: int
    question: Turn


@dataclass
class Cost(Message):
    """What the message in the input takes."""

    text: str
    files: tuple[tuple[str, int], ...]
    """(mention, tokens) of the files that it names."""
    error: str = ""


@dataclass
class ChatWith(Message):
    """The person wants to try an adapter that was just made."""

    model: str
    adapter: str


@dataclass
class ChatOn(Message):
    """The person wants to go on with another model."""

    model: str


@dataclass
class JobEnded(Message):
    """A fine-tuning run, a batch or a download is over, however it ended."""

    job: Job
