"""Entries of the handbook as they stand there, over the conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from localllm.handbook.entries import Entry, by_id

_ID = re.compile(r"\(([a-z0-9-]+)\)")
_CODE = re.compile(r"`([^`]*)`")


class EntriesScreen(ModalScreen[None]):
    """Closed by Esc, Enter or a click."""

    BINDINGS = [Binding("escape,enter,q", "dismiss", "Back")]

    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__()
        self._entries = entries

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog -tall") as box:
            box.border_title = "From the handbook"
            box.border_subtitle = "Esc goes back"
            yield Static(Content("\n\n").join(map(entry_text, self._entries)))

    def on_click(self) -> None:
        self.dismiss()


def entry_text(entry: Entry) -> Content:
    """Title and text; names of commands and options stand out."""
    parts: list[Content | str | tuple[str, str]] = [(entry.title, "bold"), f"  {entry.id}\n"]
    for number, piece in enumerate(_CODE.split(entry.body)):
        parts.append((piece, "bold $accent") if number % 2 else piece)
    if entry.see:
        parts.append((f"\nSee also: {', '.join(entry.see)}", "dim"))
    return Content.assemble(*parts)


def entries_in(source: str) -> list[Entry]:
    """Those that the line under a reply names."""
    return [by_id()[name] for name in _ID.findall(source) if name in by_id()]
