"""A question with one line as its answer, over the conversation."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from localllm.sanitize import sanitize, sanitize_line


class AskScreen(ModalScreen[str | None]):
    """Ends with what was typed, or None."""

    BINDINGS = [Binding("escape", "dismiss(None)", "Back")]

    def __init__(self, title: str, value: str = "", text: str = "") -> None:
        super().__init__()
        self._title, self._value, self._text = title, value, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(sanitize_line(self._title))
            box.border_subtitle = "Enter is yes · Esc goes back"
            if self._text:
                yield Static(Content(sanitize(self._text)), classes="dialog-line")
            yield Input(self._value, compact=True)

    @on(Input.Submitted)
    def submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)
