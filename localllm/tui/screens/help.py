"""Keys and commands, over the conversation."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from localllm.tui.commands import COMMANDS
from localllm.tui.keymap import HELP


class HelpScreen(ModalScreen[None]):
    """Closed by Esc, Enter, F1 or a click."""

    BINDINGS = [Binding("escape,enter,f1,q", "dismiss", "Close")]

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help") as box:
            box.border_title = "Help"
            box.border_subtitle = "Esc closes"
            yield Static(help_text())

    def on_click(self) -> None:
        self.dismiss()


def help_text() -> Content:
    """Two tables: the commands, then the keys."""
    commands = [(f"/{name} {argument}".strip(), what) for name, (argument, what) in COMMANDS.items()]
    return Content("\n\n").join([_table("Commands", commands), _table("Keys", list(HELP))])


def _table(title: str, rows: list[tuple[str, str]]) -> Content:
    lines = [Content.assemble((title, "bold"))]
    lines += [Content.assemble((f"  {left:<22}", "bold"), right) for left, right in rows]
    return Content("\n").join(lines)
