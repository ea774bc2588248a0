"""The screens beside the chat, in the top line of every screen: their keys and names, to be found and clicked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from localllm.tui.keymap import spoken

if TYPE_CHECKING:
    from localllm.tui.app import LocalLLMApp

_PLACES = (("finetune", "Tune"), ("batch", "Batch"), ("models", "Models"))


class Navigation(Horizontal):
    """`F6 Tune  F7 Batch  F9 Models`, with the person's own keys; empty where the app has no such screens."""

    app: LocalLLMApp

    def __init__(self, here: str = "") -> None:
        """`here` is the place of the screen that it stands on."""
        super().__init__()
        self._here = here

    def compose(self) -> ComposeResult:
        for place, name in _PLACES:
            if self.app.check_action(place, ()):
                key = spoken(self.app.keys[f"app.{place}"].split(",")[0])
                text = Content.assemble((key, "bold $accent" if place != self._here else "bold"), f" {name}")
                yield Static(text, name=place, classes="-here" if place == self._here else "")

    async def on_click(self, event: events.Click) -> None:
        place = event.widget.name if event.widget is not None else None
        if place and place != self._here:
            await self.app.run_action(f"app.{place}")
