"""The list of conversations, and the search over all their text."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.store.chats.records import ChatRecord, Found
from localllm.store.chats.search import search
from localllm.store.chats.store import ChatStore
from localllm.tui.keymap import bindings

SHOWN = 200
"""Conversations in the list; the search finds the others."""


class ChatList(OptionList):
    """The conversations themselves."""

    BINDINGS = bindings("list")

    class Wished(Message):
        """The person wants something done with the highlighted conversation."""

        def __init__(self, wish: str, chat: int | None) -> None:
            super().__init__()
            self.wish, self.chat = wish, chat

    def _wish(self, wish: str) -> None:
        option = None if self.highlighted is None else self.get_option_at_index(self.highlighted)
        number = int((option.id or "").split(":")[0]) if option and option.id else None
        self.post_message(self.Wished(wish, number))

    def action_rename(self) -> None:
        self._wish("rename")

    def action_pin(self) -> None:
        self._wish("pin")

    def action_delete(self) -> None:
        self._wish("delete")

    def action_undo(self) -> None:
        self._wish("undo")

    def action_export(self) -> None:
        self._wish("export")

    def action_leave(self) -> None:
        self._wish("leave")


class Sidebar(Vertical):
    """Search above, conversations below. It reads the store in threads, so that typing never waits for a disk."""

    class Chosen(Message):
        """A conversation, and the turn in it that a search found."""

        def __init__(self, chat: int, turn: int | None) -> None:
            super().__init__()
            self.chat, self.turn = chat, turn

    def __init__(self, store: ChatStore) -> None:
        super().__init__(id="sidebar")
        self._store = store
        self._current: int | None = None

    def compose(self) -> ComposeResult:
        yield Input(placeholder="Search all text", id="search", compact=True)
        yield ChatList(id="chats", markup=False, compact=True)
        yield Static(id="chats-hint", markup=False)

    def show_current(self, chat: int | None) -> None:
        """Mark the conversation that is open, and read the list again."""
        self._current = chat
        self.reload()

    def reload(self) -> None:
        """Read the list, or search, again."""
        self.run_worker(self._read(self.query_one("#search", Input).value), exclusive=True, group="list")

    def focus_search(self) -> None:
        self.query_one("#search", Input).focus()

    @on(Input.Changed, "#search")
    def search_changed(self) -> None:
        self.reload()

    @on(Input.Submitted, "#search")
    def search_submitted(self) -> None:
        chats = self.query_one(ChatList)
        if chats.option_count:
            chats.focus()
            chats.highlighted = 0

    def on_key(self, event: events.Key) -> None:
        """From the search down into the list, and out."""
        if event.key == "down" and self.query_one("#search").has_focus:
            event.stop()
            self.search_submitted()
        elif event.key == "escape" and self.query_one("#search").has_focus:
            event.stop()
            self.query_one("#search", Input).value = ""
            self.post_message(ChatList.Wished("leave", None))

    @on(OptionList.OptionSelected, "#chats")
    def chosen(self, event: OptionList.OptionSelected) -> None:
        if event.option_id:
            chat, _, turn = event.option_id.partition(":")
            self.post_message(self.Chosen(int(chat), int(turn) if turn else None))

    async def _read(self, query: str) -> None:
        try:
            if query.strip():
                await asyncio.sleep(0.1)  # while the person types on, nothing is searched
                found = await asyncio.to_thread(search, self._store.database, query)
                self._show([_found(hit) for hit in found], f"{len(found)} found" if found else "nothing found")
            else:
                chats, count = await asyncio.to_thread(lambda: (self._store.chats(SHOWN), self._store.count()))
                more = f"{count - SHOWN} older: search" if count > SHOWN else ""
                self._show([self._option(chat) for chat in chats], more or ("" if chats else "no conversations yet"))
        except LocalLLMError as error:
            self._show([], error.message)

    def _show(self, options: Sequence[Option], hint: str) -> None:
        chats = self.query_one(ChatList)
        at = chats.highlighted
        chats.clear_options()
        chats.add_options(_once(options))
        if at is not None and chats.option_count:
            chats.highlighted = min(at, chats.option_count - 1)
        label = self.query_one("#chats-hint", Static)
        label.update(Content(sanitize_line(hint)))
        label.display = bool(hint)

    def _option(self, chat: ChatRecord) -> Option:
        title = sanitize_line(chat.title) or "(empty)"
        marks = ("▸ " if chat.id == self._current else "  ") + ("★ " if chat.pinned else "")
        return Option(Content.assemble(marks, (title, "bold") if chat.id == self._current else title), id=str(chat.id))


def _found(hit: Found) -> Option:
    title = sanitize_line(hit.chat.title) or "(empty)"
    if hit.turn is None:
        return Option(Content(title), id=str(hit.chat.id))
    text = Content.assemble((title, "bold"), "\n  ", (sanitize_line(hit.excerpt), "dim"))
    return Option(text, id=f"{hit.chat.id}:{hit.turn}")


def _once(options: Sequence[Option]) -> list[Option]:
    return list({option.id: option for option in options}.values())
