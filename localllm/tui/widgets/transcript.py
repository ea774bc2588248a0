"""The conversation: messages from top to bottom, kept scrolled to the newest unless the person scrolled away.

Of a long one only the end is drawn; what is above comes when the person scrolls there, and goes again when they are
back at the end, so that neither time nor memory grow with the conversation.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from localllm.store.chats.records import Turn
from localllm.tasks.context import without_thought
from localllm.tui.events import ChatState
from localllm.tui.widgets.message import FOLDED_LINES, AssistantMessage, Note, TurnMessage, UserMessage
from localllm.tui.widgets.plain import Plain
from localllm.tui.widgets.welcome import Welcome

FIRST_CHARACTERS, FIRST_TURNS = 8000, 16
"""What is drawn of a conversation that is opened, whichever is less; an exchange at least. What the view holds of it
comes first, and the rest when that is on the screen."""
MORE_TURNS = 20
MOST_TURNS = 40
"""Drawn turns from which on the oldest go: all that are drawn take part in every layout."""


class Earlier(Static):
    """What is above and not drawn."""

    class Wanted(Message):
        """The person asked for it."""

    def __init__(self, count: int) -> None:
        super().__init__(Content(f"▴ {count} earlier messages · click or PgUp shows more"), classes="earlier links")

    def on_click(self) -> None:
        self.post_message(self.Wanted())


class LeftOut(Static):
    """The line between what is no longer sent to the model and what is."""

    def __init__(self, count: int, summary: bool) -> None:
        what = "summarized for the model" if summary else "not sent to the model any more"
        super().__init__(Content(f"▴ the {count} messages above are {what} · F5 changes that"), classes="left-out")


class Transcript(VerticalScroll, Plain, can_focus=False):
    """Holds the messages; the input keeps the focus."""

    def __init__(self, model: str, *, first: bool = False) -> None:
        """`first` for somebody who has never been here."""
        super().__init__(id="transcript")
        self._model, self._first = model, first
        self._branch: list[Turn] = []
        self._start = 0  # index in the branch of the first turn that is drawn
        self._wanted = 0  # index of the first turn that is to be drawn next
        self._left_out = (0, False)

    def compose(self) -> ComposeResult:
        yield Welcome(self._model, first=self._first)

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

    @property
    def branch(self) -> list[Turn]:
        """All turns of what is shown, drawn or not."""
        return self._branch

    @property
    def left_out(self) -> int:
        return self._left_out[0]

    @property
    def messages(self) -> list[TurnMessage]:
        """Those that are drawn, in their order; of replies side by side the last."""
        return list(self.query(TurnMessage))

    def welcome(self, state: ChatState) -> None:
        """Introduce the model, if the welcome is still there."""
        for widget in self.query(Welcome):
            widget.show(state)

    # Whole conversations

    async def show(self, state: ChatState, branch: Sequence[Turn]) -> None:
        """A conversation from its end; without turns, the welcome."""
        self._branch, self._left_out = list(branch), (state.left_out, bool(state.settings.summary))
        self._wanted = _first_drawn(self._branch)
        self._start = max(self._wanted, _first_seen(self._branch, *self.size))
        self.anchor(False)
        with self.app.batch_update():
            await self.remove_children()
            if branch:
                await self.mount_all(self._widgets(self._start, len(branch)))
            else:
                await self.mount(Welcome(self._model))
                self.welcome(state)
        self.call_after_refresh(self._to_the_end)

    async def complete(self) -> None:
        """Draw what `show` left for later."""
        wanted, self._wanted = self._wanted, len(self._branch)
        if wanted < self._start:
            at_the_end = self.is_anchored or self.max_scroll_y == 0
            await self._add_above(wanted)
            if at_the_end:
                self.call_after_refresh(self._to_the_end)

    def _to_the_end(self) -> None:
        self.scroll_end(animate=False)
        self.follow()

    async def reveal(self, turn: int, *, focus: bool = False) -> None:
        """Draw what is needed for a turn to be there, and scroll to it; with `focus` the keys are for it then."""
        index = next((i for i, t in enumerate(self._branch) if t.id == turn), None)
        if index is None:
            return
        if index < self._start:
            await self._draw_from(max(0, index - 4))
        for message in self.messages:
            if message.turn is not None and message.turn.id == turn:
                self.anchor(False)
                if focus:
                    message.focus(scroll_visible=False)
                self.call_after_refresh(self.scroll_to_widget, message, animate=False, top=True)

    async def more(self) -> None:
        """Draw earlier turns, the view staying at what it shows."""
        if self._start == 0:
            return
        await self._add_above(max(0, self._start - MORE_TURNS))

    async def _add_above(self, start: int) -> None:
        height = self.virtual_size.height
        await self._draw_from(start)
        if not self.is_anchored:
            self.call_after_refresh(self._stay, height)

    def _stay(self, height: int) -> None:
        self.scroll_to(y=self.scroll_y + self.virtual_size.height - height, animate=False)

    @on(Earlier.Wanted)
    async def more_wanted(self) -> None:
        await self.more()

    async def _draw_from(self, start: int) -> None:
        widgets = self._widgets(start, self._start)
        self._start = start
        with self.app.batch_update():
            await self.query(Earlier).remove()
            await self.mount_all(widgets, before=0)

    def _widgets(self, start: int, end: int) -> list[Static | TurnMessage]:
        found: list[Static | TurnMessage] = [Earlier(start)] if start else []
        count, summary = self._left_out
        for index in range(start, end):
            if count and index == count:
                found.append(LeftOut(count, summary))
            turn = self._branch[index]
            found.append(UserMessage(turn) if turn.role != "assistant" else AssistantMessage(turn))
        return found

    # Growing

    async def add_question(self, turn: Turn) -> UserMessage:
        """A message that was just sent."""
        await self.query(Welcome).remove()
        await self._end_with(turn.parent)
        await self._prune()
        self._branch.append(turn)
        message = UserMessage(turn)
        await self.mount(message)
        self._to_the_end()
        self.call_after_refresh(self.follow)
        return message

    async def add_replies(self, turns: Sequence[Turn]) -> list[AssistantMessage]:
        """Replies on their way, below the turn that they answer; what stood there goes."""
        replies = [AssistantMessage(turn, live=True) for turn in turns]
        with self.app.batch_update():
            await self._end_with(turns[0].parent)
            await (self.mount(replies[0]) if len(replies) == 1 else self.mount(SideBySide(*replies)))
        self._branch.append(turns[-1])
        self._to_the_end()
        self.call_after_refresh(self.follow)
        return replies

    async def _end_with(self, parent: int | None) -> None:
        """Take out what stands below a turn: the branch goes on otherwise."""
        index = next((i for i, turn in enumerate(self._branch) if turn.id == parent), -1)
        gone = {turn.id for turn in self._branch[index + 1 :]}
        self._branch = self._branch[: index + 1]
        self._start = min(self._start, max(0, index))
        children = list(self.children)
        first = next((i for i, child in enumerate(children) if _ids(child) & gone), len(children))
        if first < len(children):
            await self.remove_children(children[first:])

    def saved(self, turn: Turn) -> None:
        """A reply has ended."""
        if self._branch and self._branch[-1].id == turn.id:
            self._branch[-1] = turn

    async def add_note(self, text: str) -> None:
        """Say in the conversation that something changed here."""
        await self.query(Welcome).remove()
        await self.mount(Note(text))
        self.call_after_refresh(self.follow)

    async def _prune(self) -> None:
        """Take the oldest out where many are drawn."""
        drawn = [child for child in self.children if isinstance(child, TurnMessage | SideBySide | Note | LeftOut)]
        if len(drawn) <= MOST_TURNS:
            return
        gone = drawn[: len(drawn) - MOST_TURNS // 2]
        self._start = max(0, len(self._branch) - MOST_TURNS // 2)
        kept = next((i for i, t in enumerate(self._branch) if t.id in _ids(drawn[len(gone)])), self._start)
        self._start = kept
        with self.app.batch_update():
            await self.query(Earlier).remove()
            await self.remove_children(gone)
            await self.mount(Earlier(self._start), before=0)


class SideBySide(Horizontal):
    """Replies to the same message, next to each other."""

    def __init__(self, *replies: AssistantMessage) -> None:
        super().__init__(*replies, classes="side-by-side")


def _ids(widget: object) -> set[int]:
    messages = [widget] if isinstance(widget, TurnMessage) else getattr(widget, "children", ())
    return {m.turn.id for m in messages if isinstance(m, TurnMessage) and m.turn is not None}


def _first_seen(branch: Sequence[Turn], width: int, height: int) -> int:
    """Index of the first turn that the view may hold, its end being the conversation's."""
    for index in range(len(branch) - 1, -1, -1):
        height -= _least_lines(branch[index], max(1, width))
        if height < 0:
            return index
    return 0


def _least_lines(turn: Turn, width: int) -> int:
    """Of a turn with its heading and a blank line: those of its text, as far as it is not folded."""
    text = turn.content if turn.role == "user" else without_thought(turn)
    lines = sum(-(-len(line) // width) for line in text.splitlines())
    return 2 + (min(lines, FOLDED_LINES // 3) if turn.role == "user" else lines)


def _first_drawn(branch: Sequence[Turn]) -> int:
    characters = 0
    for index in range(len(branch) - 1, -1, -1):
        characters += len(branch[index].content)
        drawn = len(branch) - index
        if drawn >= 2 and (characters > FIRST_CHARACTERS or drawn >= FIRST_TURNS):
            return index
    return 0
