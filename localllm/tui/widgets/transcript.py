"""The conversation: messages from top to bottom, kept scrolled to the newest unless the person scrolled away."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from localllm.tui.events import ChatState
from localllm.tui.widgets.message import AssistantMessage, Note, UserMessage
from localllm.tui.widgets.welcome import Welcome


class Transcript(VerticalScroll, can_focus=False):
    """Holds the messages; the input keeps the focus."""

    def __init__(self, model: str) -> None:
        super().__init__(id="transcript")
        self._model = model

    def compose(self) -> ComposeResult:
        yield Welcome(self._model)

    def watch_show_vertical_scrollbar(self) -> None:
        self.call_after_refresh(self.follow)

    def follow(self) -> None:
        """Stay at the newest line, unless the person scrolled away.

        Only once there is something to scroll: an anchor under short content would push that to the bottom.
        """
        overflows = self.max_scroll_y > 0
        if overflows != self.is_anchored:
            self.anchor(overflows)
            if not overflows:
                self.scroll_home(animate=False)

    def welcome(self, state: ChatState) -> None:
        """Introduce the model, if the welcome is still there."""
        for widget in self.query(Welcome):
            widget.show(state)

    async def add_turn(self, text: str, author: str) -> tuple[UserMessage, AssistantMessage]:
        """Add a message and the empty reply to it."""
        turn = UserMessage(text), AssistantMessage(author)
        await self.query(Welcome).remove()
        await self.mount_all(turn)
        self.scroll_end(animate=False)
        self.call_after_refresh(self.follow)
        return turn

    async def add_note(self, text: str) -> None:
        """Say in the conversation that something changed here."""
        await self.query(Welcome).remove()
        await self.mount(Note(text))
        self.call_after_refresh(self.follow)

    async def reset(self, state: ChatState) -> None:
        """Forget everything and show the welcome again."""
        self.anchor(False)
        await self.remove_children()
        await self.mount(Welcome(self._model))
        self.welcome(state)
