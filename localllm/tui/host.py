"""The chat as the app holds it: the only part of the app that touches the engine, always from a worker thread.

Its methods block, so the screen runs each in a thread worker; what happens is posted as events. A lock keeps two of
them from using the engine at once. `stop` and `close` may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from textual.message import Message

from localllm.engine.base import Event, Finished, Prefilled, TextDelta
from localllm.errors import EngineError, LocalLLMError
from localllm.sanitize import Sanitizer, sanitize, sanitize_line
from localllm.tui.events import (
    ActionFailed,
    Changed,
    ChatState,
    Opened,
    OpenFailed,
    ReplyFailed,
    ReplyFinished,
    ReplyProgress,
)

if TYPE_CHECKING:
    from localllm.tasks.chat import Chat

COALESCE_SECONDS = 0.03
"""Tokens that arrive within this time are drawn together: faster than the eye, and one layout instead of many."""

T = TypeVar("T")
Post = Callable[[Message], object]


class ChatHost:
    """Opens, drives and closes one Chat."""

    def __init__(self, open_chat: Callable[[], Chat], clock: Callable[[], float]) -> None:
        self._open_chat = open_chat
        self._clock = clock
        self._chat: Chat | None = None
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self._closing = threading.Event()
        self._post: Post = lambda message: None

    def connect(self, post: Post) -> None:
        """Send events there from now on."""
        self._post = lambda message: None if self._closing.is_set() else post(message)

    def open(self) -> None:
        """Load the model; posts Opened or OpenFailed."""
        with self._lock:
            try:
                self._chat = self._open_chat()
                self._post(Opened(self._state()))
            except Exception as error:  # raised again by run_chat, once the terminal is back to normal
                self._post(OpenFailed(error))

    def reply(self, text: str) -> None:
        """Answer a message; posts ReplyProgress, then ReplyFinished or ReplyFailed."""
        with self._lock, self._failures(ReplyFailed):
            self._cancel.clear()
            if self._closing.is_set():
                return
            finished = self._stream(text)
            self._post(ReplyFinished(finished.reason, finished.usage, self._state()))

    def use_adapter(self, name: str | None) -> None:
        """Attach an adapter in place of the present one; None detaches. Posts Changed or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            adapter = self._opened().use_adapter(name)
            note = f"adapter {sanitize_line(adapter.name)} is on" if adapter else "adapter is off"
            self._post(Changed(self._state(), note))

    def set_system(self, text: str | None) -> None:
        """Use a system prompt from the next reply on; None removes it. Posts Changed or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            self._opened().session.system = text
            note = f"system prompt: {sanitize(text)}" if text else "system prompt removed"
            self._post(Changed(self._state(), note))

    def clear(self) -> None:
        """Forget the conversation. Posts Changed."""
        with self._lock, self._failures(ActionFailed):
            self._opened().session.clear()
            self._post(Changed(self._state(), ""))

    def stop(self) -> None:
        """End the running reply, keeping what there is of it."""
        self._cancel.set()

    def disconnect(self) -> None:
        """Stop, and post nothing any more."""
        self._closing.set()
        self._cancel.set()

    def close(self) -> None:
        """Wait for the engine's thread to be done, and free the model."""
        self.disconnect()
        with self._lock:
            if self._chat is not None:
                self._chat.close()
                self._chat = None

    def _opened(self) -> Chat:
        if self._chat is None:
            raise EngineError("The model is not open.", "Wait until it is ready.")
        return self._chat

    def _state(self) -> ChatState:
        chat = self._opened()
        info = chat.engine.info
        return ChatState(
            model=sanitize_line(chat.model.name),
            title=sanitize_line(chat.model.title or chat.model.name),
            description=sanitize_line(chat.model.description),
            parameters=info.n_params,
            n_ctx=info.n_ctx,
            context_used=_or(0, chat.session.tokens_used),
            adapter=sanitize_line(chat.adapter.name) if chat.adapter else None,
            adapters=_or((), lambda: tuple(sanitize_line(adapter.name) for adapter in chat.registry.adapters())),
            system=chat.session.system,
        )

    def _stream(self, text: str) -> Finished:
        """Drive the reply to its end, posting what comes in about every COALESCE_SECONDS."""
        pieces = _Pieces(self._clock, self._post)
        events: Iterator[Event] = self._opened().send(text, self._cancel)
        finished: Finished | None = None
        try:
            for event in events:
                if isinstance(event, Finished):
                    finished = event
                else:
                    pieces.add(event)
        finally:
            pieces.flush()
        if finished is None:
            raise EngineError("The engine stopped without finishing the reply.", "Send the message again.")
        return finished

    @contextmanager
    def _failures(self, failed: Callable[[LocalLLMError], Message]) -> Iterator[None]:
        """Post what goes wrong. The app is the last to hold the conversation, so not even a bug may end it here."""
        try:
            yield
        except LocalLLMError as error:
            self._post(failed(error))
        except Exception as error:
            what = f"Something unexpected went wrong: {type(error).__name__}: {error}"
            self._post(failed(EngineError(what, "The conversation is kept; please report this.")))


def _or(default: T, fact: Callable[[], T]) -> T:
    """A fact that is only shown: not having it must not fail what the person asked for."""
    try:
        return fact()
    except LocalLLMError:
        return default


class _Pieces:
    """Gathers the pieces of a reply, cleaned, and posts them in batches."""

    def __init__(self, clock: Callable[[], float], post: Post) -> None:
        self._clock = clock
        self._post = post
        self._sanitizer = Sanitizer()
        self._text: list[str] = []
        self._prompt = (0, 0)
        self._tokens = 0
        self._started = clock()
        self._sent = float("-inf")

    def add(self, event: Prefilled | TextDelta) -> None:
        """Take one event in, and post if it is time."""
        if isinstance(event, Prefilled):
            self._prompt = (event.done, event.total)
            self._started = self._clock()
        else:
            self._text.append(self._sanitizer.feed(event.text))
            self._tokens += len(event.tokens)
        if self._clock() - self._sent >= COALESCE_SECONDS:
            self._send()

    def flush(self) -> None:
        """Post what is left."""
        self._text.append(self._sanitizer.flush())
        self._send()

    def _send(self) -> None:
        self._sent = self._clock()
        elapsed = self._sent - self._started
        rate = self._tokens / elapsed if elapsed > 0 else 0.0
        self._post(ReplyProgress("".join(self._text), *self._prompt, self._tokens, rate))
        self._text.clear()
