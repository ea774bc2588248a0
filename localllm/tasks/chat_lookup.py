"""The handbook in a conversation: the last question is looked up, and the model is sent what it is to read.

What is stored and shown stays what the person wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from localllm.store.chats.records import ChatSettings, Turn
from localllm.tasks.attaching import read_first
from localllm.tasks.chat import Chat
from localllm.tasks.looking_up import LookedUp, consult, fitted, wanted
from localllm.tasks.reading import turns_for
from localllm.types import Message


def asked(chat: Chat, settings: ChatSettings) -> bool | None:
    """What the person says of the handbook: in this conversation, else when the chat was opened."""
    return chat.handbook if settings.handbook is None else settings.handbook


def in_force(chat: Chat, settings: ChatSettings, *, compared: bool = False) -> bool:
    """Whether questions are looked up. Compared replies are to the same prompt, so an adapter on one side counts."""
    return wanted(asked(chat, settings), chat.model, adapter=compared or chat.adapter is not None)


def look_up(
    chat: Chat, settings: ChatSettings, branch: Sequence[Turn], *, compared: bool = False, again: bool = False
) -> LookedUp | None:
    """Look up the question that ends a branch which the session holds; None where it goes to the model as it is.

    The session then holds what the model gets instead; the built-in one reads files before the question. A model that
    only reads is asked for its likeliest words the first time, as it was measured, and as the settings say when it is
    asked `again`.
    """
    session = chat.session
    adapter = compared or chat.adapter is not None
    if chat.model.source == "built-in" and not adapter:
        session.turns = [replace(turn, content=read_first(turn.content)) for turn in session.turns]
    if session.sampling.grammar or session.sampling.json_schema or not session.turns:
        return None
    before = [Message(turn.role, turn.content) for turn in branch[:-1]]
    found = consult(asked(chat, settings), chat.model, branch[-1].content, before, adapter=adapter)
    if found is None or found.instead:
        return found
    found = fitted(chat.engine, found, [] if found.held else session.messages[:-1])
    session.turns = turns_for(found, session.turns)
    if found.held and not again:
        session.sampling = replace(session.sampling, temperature=0.0)
    return found
