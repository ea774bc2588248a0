"""The top line of a screen beside the chat: which program, which screen, and how its work stands."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from localllm.sanitize import sanitize_line
from localllm.tui.widgets.navigation import Navigation


class TitleBar(Horizontal):
    """`localllm  TITLE` on the left, the screens and the status on the right."""

    def __init__(self, title: str, place: str = "") -> None:
        super().__init__()
        self._title, self._place = title, place

    def compose(self) -> ComposeResult:
        yield Static(Content("localllm"), classes="program")
        yield Static(Content(self._title), classes="title")
        yield Navigation(self._place)
        yield Static(classes="status", markup=False)

    def say(self, status: str) -> None:
        """Replace the status."""
        self.query_one(".status", Static).update(Content(sanitize_line(status)))
