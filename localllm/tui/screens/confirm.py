"""Yes or no, before something is lost."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from localllm.sanitize import sanitize


class ConfirmScreen(ModalScreen[bool]):
    """Ends with whether the answer was yes. The focus is on no."""

    BINDINGS = [Binding("escape,n", "dismiss(False)", "No"), Binding("y", "dismiss(True)", "Yes")]
    AUTO_FOCUS = "#no"

    def __init__(self, question: str, yes: str) -> None:
        super().__init__()
        self._question, self._yes = question, yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="confirm"):
            yield Static(Content(sanitize(self._question)))
            with Horizontal(classes="buttons"):
                yield Button(self._yes, id="yes", variant="error", compact=True)
                yield Button("No", id="no", compact=True)

    @on(Button.Pressed)
    def pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")
