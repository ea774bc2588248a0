"""The top line: which program, which conversation, which model, which adapter."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from localllm.tui.widgets.navigation import Navigation


class ChatHeader(Horizontal):
    """`localllm  title` on the left, the other screens and `model  adapter` on the right."""

    title: reactive[str] = reactive("")
    model: reactive[str] = reactive("")
    adapter: reactive[str | None] = reactive(None)
    compared: reactive[str | None] = reactive(None)

    def compose(self) -> ComposeResult:
        yield Static(Content("localllm"), id="program")
        yield Static(id="title", markup=False)
        yield Navigation()
        yield Static(id="model", markup=False)
        yield Static(id="adapter", markup=False)

    def watch_title(self, title: str) -> None:
        self.query_one("#title", Static).update(Content(title))

    def watch_model(self, model: str) -> None:
        self.query_one("#model", Static).update(Content(model))

    def watch_adapter(self) -> None:
        self._show_adapter()

    def watch_compared(self) -> None:
        self._show_adapter()

    def _show_adapter(self) -> None:
        label = self.query_one("#adapter", Static)
        name = f"adapter: {self.adapter}" if self.adapter else "no adapter"
        label.update(Content(f"comparing base and {self.compared}" if self.compared else name))
        label.set_class(bool(self.adapter or self.compared), "-on")
