"""The chat as the app holds it: with replies.py the only part that touches the engine, always from a worker thread.

Its methods block, so the screen runs each in a thread worker; what happens is posted as events. A lock keeps two of
them from using the engine at once. `stop` and `close` may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from textual.message import Message as Event

from localllm.errors import EngineError, LocalLLMError
from localllm.sanitize import sanitize, sanitize_line
from localllm.store.chats.records import ChatSettings, Turn
from localllm.store.chats.store import ChatStore
from localllm.tasks.attaching import attachments
from localllm.tasks.opening import attachments as attached
from localllm.tui.describing import describe, tokens_sent
from localllm.tui.events import ActionFailed, Changed, ChatState, Cost, Counted, Loaded, Opened, OpenFailed
from localllm.types import Sampling

if TYPE_CHECKING:
    from localllm.engine.base import Engine
    from localllm.tasks.chat import Chat

COUNTED_AT_ONCE = 20_000
"""Characters of a conversation from which on it is shown first and counted then: that takes a moment."""
Post = Callable[[Event], object]


class Host:
    """Opens, sets and closes one Chat, and knows which conversation is shown."""

    def __init__(self, open_chat: Callable[[], Chat], store: ChatStore, clock: Callable[[], float]) -> None:
        self.store = store
        self._open_chat = open_chat
        self._clock = clock
        self._chat: Chat | None = None
        self._beside: Engine | None = None
        self._compared: str | None = None
        self._number: int | None = None  # of the conversation; None until something was said in it
        self._settings = ChatSettings()
        self._default = Sampling()
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self._closing = threading.Event()
        self._post: Post = lambda message: None

    def connect(self, post: Post) -> None:
        """Send events there from now on."""
        self._post = lambda message: None if self._closing.is_set() else post(message)

    # The model

    def open(self) -> None:
        """Load the model; posts Opened or OpenFailed."""
        with self._lock:
            try:
                self._chat = self._open_chat()
                session = self._chat.session
                self._default = session.sampling
                self._settings = ChatSettings(system=session.system)
                self._post(Opened(self._state()))
            except Exception as error:  # raised again by run_chat, once the terminal is back to normal
                self._post(OpenFailed(error))

    def use_adapter(self, name: str | None) -> None:
        """Attach an adapter in place of the present one; None detaches. Posts Changed or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            self._switch_adapter(name)

    def use_model(self, name: str, adapter: str | None = None) -> None:
        """Go on with another model, with that adapter or none. Posts Changed or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            self._switch_model(name, adapter)

    def chat_with(self, model: str, adapter: str) -> None:
        """Go on with an adapter on the model that it was made for, which is opened only where it is another one.

        Posts Changed or ActionFailed.
        """
        with self._lock, self._failures(ActionFailed):
            chat = self._opened()
            if chat.registry.model(model).path == chat.model.path:
                self._switch_adapter(adapter)
            else:
                self._switch_model(model, adapter)

    def _switch_adapter(self, name: str | None) -> None:
        adapter = self._opened().use_adapter(name)
        note = f"adapter {sanitize_line(adapter.name)} is on" if adapter else "adapter is off"
        self._keep(replace(self._settings, adapter=name))
        self._post(Changed(self._state(), note))

    def _switch_model(self, name: str, adapter: str | None) -> None:
        self._end_comparing()
        chat = self._opened()
        chat.use_model(name, adapter)
        if chat.sampling_for is not None:
            self._default = chat.sampling_for(chat.model)
        self._keep(replace(self._settings, model=chat.model.name, adapter=adapter))
        self._post(Changed(self._state(), f"model {sanitize_line(chat.author)}"))

    def compare(self, name: str | None) -> None:
        """Answer with the base and with this adapter, side by side; None ends that. Posts Changed or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            if name is None:
                self._end_comparing()
                self._post(Changed(self._state(), "one reply at a time"))
                return
            chat = self._opened()
            adapter = chat.find_adapter(name)
            if self._beside is None:
                self._beside = chat.open_beside()
            self._beside.set_adapters(attached(chat.model, adapter))
            self._compared = name
            self._post(Changed(self._state(), f"base and {sanitize_line(adapter.name)}, side by side"))

    def _end_comparing(self) -> None:
        beside, self._beside, self._compared = self._beside, None, None
        if beside is not None:
            beside.close()

    # The conversation

    def set_settings(self, settings: ChatSettings, note: str) -> None:
        """Use these from the next reply on. Posts Changed or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            self._keep(settings)
            self._post(Changed(self._state(), note))

    def use_handbook(self, on: bool) -> None:
        """Look questions up in the handbook first, or do not. Posts Changed or ActionFailed."""
        note = "questions are looked up in the handbook first" if on else "the handbook is not asked"
        self.set_settings(replace(self._settings, handbook=on), note)

    def set_system(self, text: str | None) -> None:
        """Use a system prompt from the next reply on; None removes it. Posts Changed or ActionFailed."""
        note = f"system prompt: {sanitize(text)}" if text else "system prompt removed"
        self.set_settings(replace(self._settings, system=text), note)

    def begin(self) -> None:
        """A new conversation with the settings of this one. Posts Loaded."""
        with self._lock, self._failures(ActionFailed):
            self._number = None
            self._settings = replace(self._settings, first="", summary="")
            self._post(Loaded(self._state(), []))

    def show(self, chat: int, focus: int | None = None) -> None:
        """Another conversation, with its adapter if there still is one; `focus` is a turn to scroll to, whose branch
        is then shown. Posts Loaded, and Counted after a long one, or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            record = self.store.chat(chat)
            opened = self._opened()
            note = ""
            self._number, self._settings = chat, record.settings
            used = record.settings.model
            if used and used != opened.model.name:
                note = f"this was with {sanitize_line(used)}; it goes on with {sanitize_line(opened.model.name)}"
            wanted = record.settings.adapter
            if wanted != (opened.adapter.name if opened.adapter else None):
                try:
                    opened.use_adapter(wanted)
                except LocalLLMError as error:
                    opened.use_adapter(None)
                    note = f"its adapter cannot be used: {sanitize_line(error.message)}"
            if focus is not None and focus not in [turn.id for turn in self.store.turns.branch(chat)]:
                self.store.turns.show(chat, focus)
            self._show(note, focus)

    def show_turn(self, turn: int) -> None:
        """The branch through this turn. Posts Loaded, and Counted after a long one, or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            if self._number is not None:
                self.store.turns.show(self._number, turn)
                self._show(focus=turn)

    def rename(self, title: str) -> None:
        """Posts Changed or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            if self._number is not None:
                self.store.rename(self._number, title)
            self._post(Changed(self._state(), ""))

    def send_all(self) -> None:
        """Leave nothing out any more. Posts Loaded or ActionFailed."""
        with self._lock, self._failures(ActionFailed):
            self._keep(replace(self._settings, first="", summary=""))
            self._post(self._loaded("all messages are sent again"))

    def count(self, text: str) -> None:
        """What a message takes in tokens; posts Cost. Nothing while the engine is at work."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            engine = self._opened().engine
            files = [(a.mention, len(engine.tokenize(a.text, add_special=False))) for a in attachments(text)]
            self._post(Cost(text, tuple(files)))
        except LocalLLMError as error:
            self._post(Cost(text, (), error.message))
        finally:
            self._lock.release()

    # Ending

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
            self._end_comparing()
            if self._chat is not None:
                self._chat.close()
                self._chat = None

    # Helpers

    def _opened(self) -> Chat:
        if self._chat is None:
            raise EngineError("The model is not open.", "Wait until it is ready.")
        return self._chat

    def _keep(self, settings: ChatSettings) -> None:
        if self._number is not None:
            self.store.set_settings(self._number, settings)
        self._settings = settings

    def _loaded(self, note: str = "", give_back: str = "") -> Loaded:
        branch = self._branch()
        return Loaded(self._state(branch), branch, note, give_back)

    def _show(self, note: str = "", focus: int | None = None) -> None:
        """Post Loaded, and for a long conversation what it takes of the context afterwards."""
        branch = self._branch()
        long = sum(len(turn.content) for turn in branch) > COUNTED_AT_ONCE
        self._post(Loaded(self._state(branch, 0 if long else None), branch, note, focus=focus))
        if long:
            self._post(Counted(tokens_sent(self._opened(), self._settings, branch)))

    def _branch(self) -> list[Turn]:
        return [] if self._number is None else self.store.turns.branch(self._number)

    def _state(self, branch: list[Turn] | None = None, context_used: int | None = None) -> ChatState:
        """What the caller knows already is not found out again."""
        chat, settings = self._opened(), self._settings
        branch = self._branch() if branch is None else branch
        used = tokens_sent(chat, settings, branch) if context_used is None else context_used
        return describe(
            chat, self.store, self._number, branch, settings, self._default, compared=self._compared, context_used=used
        )

    @contextmanager
    def _failures(self, failed: Callable[[LocalLLMError], Event]) -> Iterator[None]:
        """Post what goes wrong. The app is the last to hold the conversation, so not even a bug may end it here."""
        try:
            yield
        except LocalLLMError as error:
            self._post(failed(error))
        except Exception as error:
            what = f"Something unexpected went wrong: {type(error).__name__}: {error}"
            self._post(failed(EngineError(what, "The conversation is kept; please report this.")))
