"""What of a conversation is sent to the model, what it takes in the context, and what could be left out.

Nothing is left out unless the person chose to: a conversation that no longer fits is refused, with its choices.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from localllm.engine.base import Event, Request, stream
from localllm.engine.session import Session
from localllm.errors import UsageError
from localllm.store.chats.records import ChatSettings, Turn
from localllm.tasks.thinking import split_thought
from localllm.types import Message, Sampling

SUMMARY_TOKENS = 400
"""The longest summary of older turns."""
_SUMMARY_INTRO = "What was said earlier in this conversation, in short:"
_ASK = (
    "Summarize the conversation above in a few sentences, so that it can be continued from the summary alone. "
    "Keep names, numbers, decisions and open questions. Write the summary and nothing else."
)


@dataclass(frozen=True)
class Sendable:
    """A branch as the model gets it."""

    messages: tuple[Message, ...]
    """Without the system prompt."""
    left_out: int
    """Turns at the beginning of the branch that the person had left out."""
    summary: str


def sendable(settings: ChatSettings, branch: Sequence[Turn]) -> Sendable:
    """The turns from `settings.first` on. On a branch without that turn nothing is left out.

    What a model thought before an earlier reply is not sent: models are trained on conversations without it.
    """
    start = left_out(settings, branch)
    messages = tuple(Message(turn.role, without_thought(turn)) for turn in branch[start:])
    return Sendable(messages, start, settings.summary if start else "")


def left_out(settings: ChatSettings, branch: Sequence[Turn]) -> int:
    """How many turns at the beginning of the branch are not sent."""
    return next((index for index, turn in enumerate(branch) if turn.uid == settings.first), 0)


def without_thought(turn: Turn) -> str:
    """The text of a turn as later ones refer to it."""
    return split_thought(turn.content)[1] if turn.role == "assistant" else turn.content


def load(session: Session, settings: ChatSettings, branch: Sequence[Turn]) -> Sendable:
    """Have the session hold what is sent of a branch."""
    sent = sendable(settings, branch)
    session.system = with_summary(settings.system, sent.summary)
    session.turns = list(sent.messages)
    return sent


def messages_of(settings: ChatSettings, branch: Sequence[Turn]) -> list[Message]:
    """All that the model gets of a branch, the system prompt first; replies without any text do not count."""
    sent = sendable(settings, [turn for turn in branch if turn.content])
    system = with_summary(settings.system, sent.summary)
    return [*([Message("system", system)] if system else []), *sent.messages]


def with_summary(system: str | None, summary: str) -> str | None:
    """The system prompt with what stands in for the turns left out."""
    note = f"{_SUMMARY_INTRO} {summary}" if summary else ""
    return "\n\n".join(filter(None, (system, note))) or None


def first_to_keep(session: Session, settings: ChatSettings, branch: Sequence[Turn], room: int) -> int:
    """Index in the branch of the first turn to send, so that `room` tokens are free: the fewest turns are left out.

    It is a turn of the person's. Raises UsageError where even the last exchange alone takes too much.
    """
    starts = [index for index, turn in enumerate(branch) if turn.role == "user"]
    before = sendable(settings, branch).left_out
    starts = [index for index in starts if index >= before]
    low, high = 0, len(starts) - 1
    if high < 0 or _tokens(session, settings, branch, starts[high]) + room > session.engine.info.n_ctx:
        raise UsageError("The last message alone takes too much of the context.", "Shorten it, or use a larger --ctx.")
    while low < high:
        middle = (low + high) // 2
        if _tokens(session, settings, branch, starts[middle]) + room <= session.engine.info.n_ctx:
            high = middle
        else:
            low = middle + 1
    return starts[low]


def _tokens(session: Session, settings: ChatSettings, branch: Sequence[Turn], start: int) -> int:
    sent = sendable(replace(settings, first=branch[start].uid), branch)
    system = with_summary(settings.system, sent.summary)
    head = [Message("system", system)] if system else []
    return len(session.engine.encode_chat([*head, *sent.messages]))


def room_wanted(n_ctx: int) -> int:
    """Tokens that leaving turns out is to make free: a quarter of the context."""
    return n_ctx // 4


def summarize_turns(
    session: Session, summary: str, turns: Sequence[Turn], cancel: threading.Event | None = None
) -> Iterator[Event]:
    """Have the model summarize turns, with the summary that stands for still older ones. Yields the answer's events.

    Raises ContextOverflowError, EngineError.
    """
    head = [Message("system", with_summary(None, summary) or "")] if summary else []
    told = "\n\n".join(f"{'User' if turn.role == 'user' else 'Assistant'}: {without_thought(turn)}" for turn in turns)
    prompt = session.prompt([*head, Message("user", f"{told}\n\n{_ASK}")])
    return stream(session.engine, Request(prompt, Sampling(max_tokens=SUMMARY_TOKENS)), cancel)
