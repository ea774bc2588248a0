"""One summary: the text, and each part with what the source says there."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Collapsible, Label, Static

from localllm.errors import LocalLLMError
from localllm.sanitize import sanitize_line
from localllm.tui.batch_text import part_text, part_title, summary_text

MOST_PARTS = 200


class ResultScreen(ModalScreen[None]):
    """Closed by Esc. The source is read again to show its parts."""

    BINDINGS = [Binding("escape,q", "dismiss", "Back")]

    def __init__(self, row: dict[str, Any]) -> None:
        super().__init__()
        self._row = row
        self._text: str | None = None

    def compose(self) -> ComposeResult:
        row = self._row
        with VerticalScroll(classes="result") as box:
            box.border_title = Content(sanitize_line(str(row["title"] or row["source"])))
            box.border_subtitle = "Esc goes back"
            yield Static(summary_text(row), id="summary")
            if row["parts"]:
                yield Label("Parts (Enter shows what the source says there)", classes="heading")
            for number, part in enumerate(row["parts"][:MOST_PARTS], 1):
                with Collapsible(title=part_title(number, part).replace("[", r"\["), classes="part"):
                    yield Static(markup=False, classes="source")
            yield Button("Back", id="back", compact=True)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()
        if self._row["parts"]:
            self.run_worker(self._read, thread=True)

    def on_button_pressed(self) -> None:
        self.dismiss()

    def _read(self) -> None:
        """In a thread: a document may take a while to open."""
        from localllm.tasks.summary_here import text_of

        try:
            self._text, why = text_of(self._row), ""
        except LocalLLMError as error:
            why = sanitize_line(error.message)
        self.app.call_from_thread(self._show, why)

    def _show(self, why: str) -> None:
        for part, place in zip(self._row["parts"], self.query(".source").results(Static), strict=False):
            place.update(Content.styled(why, "bold") if why else part_text(part, self._text))
