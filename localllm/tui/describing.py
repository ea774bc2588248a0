"""What the screen shows about the chat, gathered from the engine, the store and the settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.store.chats.records import ChatSettings, Turn
from localllm.store.chats.store import ChatStore
from localllm.tasks.chat import Chat
from localllm.tasks.chat_lookup import in_force
from localllm.tasks.context import left_out, messages_of
from localllm.tui.events import ChatState
from localllm.types import Sampling

T = TypeVar("T")


def describe(
    chat: Chat,
    store: ChatStore,
    number: int | None,
    branch: Sequence[Turn],
    settings: ChatSettings,
    default: Sampling,
    *,
    compared: str | None,
    context_used: int,
) -> ChatState:
    """Of the conversation `number` with the turns of `branch`; `default` is used where it has no sampling of its own,
    `compared` the adapter beside the base."""
    info = chat.engine.info
    record = None
    with suppress(LocalLLMError):
        record = None if number is None else store.chat(number)
    return ChatState(
        model=sanitize_line(chat.model.name),
        title=sanitize_line(chat.model.title or chat.model.name),
        description=sanitize_line(chat.model.description),
        parameters=info.n_params,
        n_ctx=info.n_ctx,
        context_used=context_used,
        adapter=sanitize_line(chat.adapter.name) if chat.adapter else None,
        adapters=_or((), lambda: tuple(sanitize_line(adapter.name) for adapter in chat.registry.adapters())),
        compared=compared,
        chat=number,
        chat_title=sanitize_line(record.title) if record else "",
        pinned=bool(record and record.pinned),
        settings=settings,
        sampling=settings.sampling or default,
        left_out=left_out(settings, branch),
        saved=store.saved,
        handbook=in_force(chat, settings, compared=compared is not None),
    )


def tokens_sent(chat: Chat, settings: ChatSettings, branch: Sequence[Turn]) -> int:
    """How many tokens the model gets of a branch; 0 where that cannot be told."""
    messages = messages_of(settings, branch)
    return _or(0, lambda: len(chat.engine.encode_chat(messages, add_generation_prompt=False)) if messages else 0)


def _or(default: T, fact: Callable[[], T]) -> T:
    """A fact that is only shown: not having it must not fail what the person asked for."""
    try:
        return fact()
    except LocalLLMError:
        return default
