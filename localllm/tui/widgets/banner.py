"""One line of what went wrong and one of what to do, above the input, until it is dismissed."""

from __future__ import annotations

from typing import Literal

from textual import events
from textual.content import Content
from textual.widgets import Static

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize


class Banner(Static):
    """Hidden until it has something to say. Esc or a click dismisses it."""

    def __init__(self) -> None:
        super().__init__(id="banner", markup=False)
        self.display = False

    def show_error(self, error: LocalLLMError) -> None:
        """Show an error with its hint."""
        self._show("error", "Error", error.message, error.hint)

    def show_hint(self, message: str, hint: str = "") -> None:
        """Show something that is not an error."""
        self._show("hint", "Note", message, hint)

    def dismiss(self) -> None:
        """Hide it."""
        self.display = False
        self.screen.refresh_bindings()

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.dismiss()

    def _show(self, kind: Literal["error", "hint"], label: str, message: str, hint: str) -> None:
        lines = Content.assemble((f"{label}: ", "bold"), sanitize(message))
        if hint:
            lines = Content.assemble(lines, "\n", ("→ ", "bold"), sanitize(hint))
        self.set_class(kind == "error", "-error")
        self.update(Content.assemble(lines, ("  Esc dismisses", "dim")))
        self.display = True
        self.screen.refresh_bindings()
