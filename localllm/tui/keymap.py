"""Every key of the app in one place: binding id -> keys. A user keymap replaces entries by the same ids."""

from __future__ import annotations

from textual.binding import Binding

KEYS: dict[str, str] = {
    "prompt.send": "enter",
    "prompt.newline": "ctrl+j,shift+enter,alt+enter",
    "chat.stop": "escape",
    "chat.adapter": "ctrl+t",
    "chat.clear": "ctrl+l",
    "chat.scroll_up": "pageup",
    "chat.scroll_down": "pagedown",
    "chat.interrupt": "ctrl+c",
    "app.help": "f1",
    "app.theme": "f2",
    "app.quit": "ctrl+q",
}


def bind(key_id: str, action: str, description: str, *, show: bool = True, priority: bool = False) -> Binding:
    """A binding of the keys that `KEYS` gives to `key_id`."""
    return Binding(KEYS[key_id], action, description, show=show, priority=priority, id=key_id)


HELP: tuple[tuple[str, str], ...] = (
    ("Enter", "send"),
    ("Ctrl+J, Shift+Enter", "new line"),
    ("Up, Down", "earlier messages of yours"),
    ("Esc", "stop the reply, or dismiss a banner"),
    ("PgUp, PgDn", "scroll the conversation"),
    ("Ctrl+T", "adapter on or off"),
    ("F2", "light or dark"),
    ("Ctrl+P", "all actions"),
    ("Ctrl+Q", "quit"),
)
"""What the help screen says about keys."""
