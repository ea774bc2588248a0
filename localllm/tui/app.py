"""The terminal app. `run_chat` opens it; everything it shows comes from the Chat that `open_chat` returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from textual import on
from textual.app import App, SystemCommand
from textual.filter import LineFilter
from textual.screen import Screen

from localllm.sanitize import sanitize_line
from localllm.tui.events import OpenFailed
from localllm.tui.filters import ControlFilter
from localllm.tui.host import ChatHost
from localllm.tui.keymap import bind
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.screens.help import HelpScreen
from localllm.tui.theme import DARK, LIGHT

if TYPE_CHECKING:
    from localllm.tasks.chat import Chat


class LocalLLMApp(App[None]):
    """Holds the host, the themes and the keys that work everywhere; the screens do the rest."""

    CSS_PATH = "app.tcss"
    TITLE = "localllm"
    BINDINGS = [
        bind("app.help", "help", "Help", priority=True),
        bind("app.theme", "switch_theme", "Light/dark", show=False),
        bind("app.quit", "quit", "Quit", priority=True),
    ]

    def __init__(
        self,
        open_chat: Callable[[], Chat],
        *,
        model: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`model` is the name to show while it is being opened; `clock` times the streaming."""
        super().__init__()
        self._control_filter = ControlFilter()
        self.host = ChatHost(open_chat, clock)
        self.model = sanitize_line(model)
        self.open_error: BaseException | None = None
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = DARK.name

    def get_default_screen(self) -> Screen[None]:
        return ChatScreen(self.host, self.model)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Everything that is drawn passes the control filter last."""
        return [*super().get_line_filters(), self._control_filter]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        yield SystemCommand("Help", "Keys and commands", self.action_help)
        yield SystemCommand("Light or dark", "Switch between the two themes", self.action_switch_theme)
        if isinstance(screen, ChatScreen):
            yield SystemCommand("Adapter", "Switch the adapter on or off", screen.action_toggle_adapter)
            yield SystemCommand("Clear", "Forget the conversation and start over", screen.action_clear)
        yield SystemCommand("Theme", "Choose a theme", self.action_change_theme)
        yield SystemCommand("Quit", "Leave", self.action_quit)

    @on(OpenFailed)
    def open_failed(self, event: OpenFailed) -> None:
        """Without a model there is nothing to do here: leave, and let the caller say why."""
        self.open_error = event.error
        self.exit(return_code=1)

    def on_unmount(self) -> None:
        self.host.disconnect()

    def action_help(self) -> None:
        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        else:
            self.push_screen(HelpScreen())

    def action_switch_theme(self) -> None:
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name


def run_chat(open_chat: Callable[[], Chat], *, model: str = "") -> int:
    """Run the app until the person leaves, and return the exit code.

    What `open_chat` raises is raised here, once the terminal is restored.
    """
    app = LocalLLMApp(open_chat, model=model)
    try:
        app.run()
    finally:
        app.host.close()
    if app.open_error is not None:
        raise app.open_error
    return app.return_code or 0
