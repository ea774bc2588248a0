"""The host's replies: to a new message, again, continued, side by side, and after making room in the context."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

from localllm.engine.base import Engine, Event, Finished, TextDelta
from localllm.engine.session import Adapters, Session
from localllm.errors import ContextOverflowError, EngineError, LocalLLMError, UsageError
from localllm.store.chats.records import Turn
from localllm.tasks.attaching import attachments, with_attachments
from localllm.tasks.chat import author
from localllm.tasks.chat_lookup import look_up
from localllm.tasks.context import first_to_keep, load, room_wanted, summarize_turns
from localllm.tasks.looking_up import LookedUp
from localllm.tasks.opening import attachments as attached
from localllm.tasks.reading import Sourced, answer
from localllm.tasks.replying import Replied, Reply
from localllm.tui.events import (
    ContextFull,
    ReplyBegun,
    ReplyEnded,
    ReplyFailed,
    ReplyFinished,
    ReplyProgress,
)
from localllm.tui.host import Host
from localllm.tui.pieces import Pieces


class ChatHost(Host):
    """Answers, and saves the answers as they come."""

    def reply(self, text: str, below: int | None) -> None:
        """Answer a message below that turn, or at the beginning. Another window may have gone on from there: then
        there are two branches.

        Posts ReplyBegun, ReplyProgress and ReplyEnded, then ReplyFinished; or ContextFull, or ReplyFailed.
        """
        with self._lock, self._reply_failures(text):
            self._cancel.clear()
            if self._closing.is_set():
                return
            content = with_attachments(text, files) if (files := attachments(text)) else text
            chat = self._begin_chat()
            question = self.store.turns.add(chat, below, "user", content, text)
            self._answer(chat, question, text)

    def again(self, turn: int) -> None:
        """Answer the question before this reply once more; the present reply stays beside the new one."""
        with self._lock, self._reply_failures(""):
            self._cancel.clear()
            chat = self._begin_chat()
            found = self.store.turns.get(turn)
            question = turn if found.role == "user" else found.parent
            assert question is not None
            self.store.turns.end_at(chat, question)
            try:
                self._answer(chat, question, None)
            except BaseException:
                if self.store.turns.branch(chat)[-1].id == question:
                    self.store.turns.show(chat, turn)
                raise

    def go_on(self, turn: int) -> None:
        """Go on with a reply that was cut or stopped, in its place."""
        with self._lock, self._reply_failures(""):
            self._cancel.clear()
            chat = self._begin_chat()
            branch = self.store.turns.branch(chat)
            if not branch or branch[-1].id != turn or branch[-1].role != "assistant":
                raise UsageError("Only the last reply can be continued.", "Show the branch that ends with it.")
            before, session = branch[-1], self._session(branch[:-1])
            settings = replace(self._settings, handbook=True) if before.source else self._settings
            found = look_up(self._opened(), settings, branch[:-1])
            session.prompt(session.messages, before.content)
            events = self._events(found, session, before=before.content)
            self.store.turns.resume(turn)
            self._post(ReplyBegun(self._state(), None, (self.store.turns.get(turn),)))
            stats = before.stats
            reply = Reply(self.store, turn, before.content, self._clock, stats.tokens, before.source)
            self._drive(reply, events, 0)
            self._post(ReplyFinished(self._state()))

    def make_room(self, how: str, question: int) -> None:
        """Leave out older turns ("drop"), or have the model summarize them ("summarize"), then answer the question.

        With "back" the question is taken out of the conversation and given back to the input.
        """
        with self._lock, self._reply_failures(""):
            self._cancel.clear()
            chat = self._begin_chat()
            branch = self.store.turns.branch(chat)
            if how == "back":
                if self.store.turns.has_replies(question):  # it was to be answered again
                    self.store.turns.show(chat, question)
                    self._post(self._loaded())
                else:
                    self.store.turns.remove(chat, question)
                    self._post(self._loaded(give_back=branch[-1].content))
                return
            note = self._leave_out(branch, summarize=how == "summarize")
            self._post(self._loaded(note))
            self._answer(chat, question, None)

    def leave_out(self, how: str) -> None:
        """The same before it has to be: half of the context is made free. Posts Loaded or ReplyFailed."""
        with self._lock, self._reply_failures(""):
            self._cancel.clear()
            branch = self.store.turns.branch(self._begin_chat())
            note = self._leave_out(branch, summarize=how == "summarize", share=2)
            self._post(self._loaded(note))

    # How

    def _begin_chat(self) -> int:
        """The conversation's number, from its first message on."""
        if self._number is None:
            opened = self._opened()
            adapter = opened.adapter.name if opened.adapter else None
            self._settings = replace(self._settings, model=opened.model.name, adapter=adapter)
            self._number = self.store.create(self._settings).id
        return self._number

    def _session(self, branch: list[Turn]) -> Session:
        """Holding what is sent of a branch."""
        session = self._opened().session
        load(session, self._settings, branch)
        session.sampling = self._settings.sampling or self._default
        return session

    def _answer(self, chat: int, question: int, text: str | None) -> None:
        """Answer the last turn of what is shown. `text` is that of a new one, which goes where nothing comes of it."""
        branch = self.store.turns.branch(chat)
        session = self._session(branch)
        again = self.store.turns.has_replies(question)
        try:
            found = look_up(self._opened(), self._settings, branch, compared=self._compared is not None, again=again)
            session.prompt(session.messages)
        except ContextOverflowError as error:
            if len(branch) > 1:
                self._post(ContextFull(self._state(), error.needed, branch[-1]))
                return
            self._take_back(chat, question, text)
            raise
        except LocalLLMError:
            self._take_back(chat, question, text)
            raise
        try:
            self._stream(chat, question, branch[-1] if text is not None else None, session, found)
        except BaseException:
            if self.store.turns.branch(chat)[-1].id == question:  # nothing was written
                self._take_back(chat, question, text)
            raise

    def _take_back(self, chat: int, question: int, text: str | None) -> None:
        if text is not None:
            self.store.turns.remove(chat, question)

    def _stream(self, chat: int, question: int, shown: Turn | None, session: Session, found: LookedUp | None) -> None:
        opened = self._opened()
        if self._compared is None or self._beside is None:
            lanes = [(opened.author, opened.engine)]
        else:
            adapter = opened.find_adapter(self._compared)
            lanes = [(opened.model.name, opened.engine), (author(opened.model, adapter), self._beside)]
        turns = [self.store.turns.begin(chat, question, name) for name, _ in lanes]
        self._post(ReplyBegun(self._state(), shown, tuple(self.store.turns.get(turn) for turn in turns)))
        replies = [Reply(self.store, turn, "", self._clock) for turn in turns]
        if len(lanes) == 1:
            self._drive(replies[0], self._events(found, session), 0)
        else:
            self._drive_both(replies, [engine for _, engine in lanes], session, found)
        warning = next((reply.unsaved for reply in replies if reply.unsaved), None)
        self._post(ReplyFinished(self._state(), warning))

    def _events(
        self, found: LookedUp | None, session: Session, *, adapters: Adapters | None = None, before: str = ""
    ) -> Iterator[Event | Sourced]:
        """Of an answer that goes on after `before`, from what was looked up if anything was."""

        def ask(cancel: threading.Event) -> Iterator[Event]:
            return session.answer(cancel, partial=before, adapters=adapters)

        return ask(self._cancel) if found is None else answer(found, ask, self._cancel, before)

    def _drive(self, reply: Reply, events: Iterator[Event | Sourced], lane: int) -> None:
        """Run a reply to its end, posting what comes in about every COALESCE_SECONDS."""
        pieces = Pieces(self._clock, self._post, lane)
        replied: Replied | None = None
        try:
            for event in reply.run(events):
                if isinstance(event, Replied):
                    replied = event
                elif not isinstance(event, Finished):
                    pieces.add(event)
        finally:
            pieces.flush()
        if replied is None:
            raise EngineError("The engine stopped without finishing the reply.", "Send the message again.")
        self._post(ReplyEnded(replied, lane))

    def _drive_both(
        self, replies: list[Reply], engines: list[Engine], session: Session, found: LookedUp | None
    ) -> None:
        """Two engines at once: the base's reply in a thread of its own."""
        sessions = [Session(engine, session.sampling, session.system) for engine in engines]
        failures: list[BaseException] = []

        opened = self._opened()

        def drive(lane: int, adapters: Adapters | None) -> None:
            sessions[lane].turns = list(session.turns)
            try:
                self._drive(replies[lane], self._events(found, sessions[lane], adapters=adapters), lane)
            except BaseException as error:
                failures.append(error)

        base = threading.Thread(target=partial(drive, 0, tuple(attached(opened.model, None))))
        base.start()
        drive(1, None)
        base.join()
        if failures:
            raise failures[0]

    def _leave_out(self, branch: list[Turn], *, summarize: bool, share: int = 4) -> str:
        """Have older turns no longer sent, so that part of the context is free; what to say about it."""
        session, n_ctx = self._opened().session, self._opened().engine.info.n_ctx
        room = max(n_ctx // share, room_wanted(n_ctx))
        try:
            start = first_to_keep(session, self._settings, branch, room)
        except UsageError:
            start = first_to_keep(session, self._settings, branch, n_ctx // 16)
        before = next((i for i, turn in enumerate(branch) if turn.uid == self._settings.first), 0)
        if start <= before:
            raise UsageError("There is nothing more to leave out.", "The context has room for what was said.")
        summary = self._settings.summary if before else ""
        if summarize:
            summary = self._summarize(session, summary, branch[before:start])
        self._keep(replace(self._settings, first=branch[start].uid, summary=summary))
        how = "are summarized for the model" if summarize else "are no longer sent to the model"
        return f"the first {start} messages {how}; they stay here"

    def _summarize(self, session: Session, summary: str, turns: list[Turn]) -> str:
        """Several at a time, as many as fit."""
        pieces: list[str] = []
        try:
            for event in summarize_turns(session, summary, turns, self._cancel):
                if isinstance(event, TextDelta):
                    pieces.append(event.text)
                    self._post(ReplyProgress(tokens=len(pieces), lane=-1))
        except ContextOverflowError:
            if len(turns) < 2:
                raise
            half = len(turns) // 2
            return self._summarize(session, self._summarize(session, summary, turns[:half]), turns[half:])
        if self._cancel.is_set():
            raise UsageError("Stopped: nothing was left out.", "")
        return "".join(pieces).strip() or summary

    def _reply_failures(self, text: str) -> AbstractContextManager[None]:
        return self._failures(partial(self._reply_failed, text))

    def _reply_failed(self, text: str, error: LocalLLMError) -> ReplyFailed:
        kept, state = False, None
        if self._chat is not None:
            state = self._state()
            branch = [] if self._number is None else self.store.turns.branch(self._number)
            kept = bool(branch) and branch[-1].role == "assistant"
            if self._number is not None and not branch:
                self.store.delete(self._number)
                self._number, state = None, replace(state, chat=None, chat_title="")
        return ReplyFailed(error, state, kept, text)
