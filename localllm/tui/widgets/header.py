"""The top line: which program, which model, which adapter."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static


class ChatHeader(Horizontal):
    """`localllm │ model` on the left, the adapter on the right."""

    model: reactive[str] = reactive("")
    adapter: reactive[str | None] = reactive(None)

    def compose(self) -> ComposeResult:
        yield Static(Content("localllm"), id="program")
        yield Static(id="model", markup=False)
        yield Static(id="adapter", markup=False)

    def watch_model(self, model: str) -> None:
        self.query_one("#model", Static).update(Content(model))

    def watch_adapter(self, adapter: str | None) -> None:
        label = self.query_one("#adapter", Static)
        label.update(Content(f"adapter: {adapter}" if adapter else "no adapter"))
        label.set_class(adapter is not None, "-on")
