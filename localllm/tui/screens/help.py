"""Keys and commands, over the conversation."""

from __future__ import annotations

from collections.abc import Mapping

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from localllm.tui.commands import COMMANDS
from localllm.tui.keymap import ACTIONS, KEYS_FILE, spoken

_PLACES = {
    "app": "Everywhere",
    "chat": "In a conversation",
    "prompt": "In the input",
    "message": "On a message (Ctrl+Up goes there)",
    "list": "In the list of conversations (F3 goes there)",
    "finetune": "On the fine-tune screen (F6)",
    "batch": "On the batch screen (F7)",
    "models": "On the models screen (F9)",
}

_OWN_KEYS = (
    f"Ctrl+P has every action by name. Keys of your own go into {KEYS_FILE} in LOCALLLM_HOME,\n"
    'a line for each, as in "chat.new" = "ctrl+n"; README lists the names.'
)


class HelpScreen(ModalScreen[None]):
    """Closed by Esc, Enter, F1 or a click."""

    BINDINGS = [Binding("escape,enter,f1,q", "dismiss", "Close")]

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys` are those in force, by the actions' ids."""
        super().__init__()
        self._keys = keys

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog -tall") as box:
            box.border_title = "Help"
            box.border_subtitle = "Esc closes"
            yield Static(help_text(self._keys))

    def on_click(self) -> None:
        self.dismiss()


def help_text(keys: Mapping[str, str]) -> Content:
    """Tables: the commands, then the keys of each place."""
    commands = [(f"/{name} {argument}".strip(), what) for name, (argument, what) in COMMANDS.items()]
    parts: list[Content] = []
    for place, title in _PLACES.items():
        rows = [
            (spoken(keys[action.id]), f"{action.name}: {action.what}" if action.what else action.name)
            for action in ACTIONS.values()
            if action.place == place and keys[action.id]
        ]
        extra = [("Up, Down", "earlier messages of yours"), ("Tab", "complete a path after @")]
        parts.append(_table(title, rows + (extra if place == "prompt" else [])))
    parts += [_table("Commands", commands), Content(_OWN_KEYS)]
    return Content("\n\n").join(parts)


def _table(title: str, rows: list[tuple[str, str]]) -> Content:
    lines = [Content.assemble((title, "bold"))]
    lines += [Content.assemble((f"  {left:<23} ", "bold"), right) for left, right in rows]
    return Content("\n").join(lines)
