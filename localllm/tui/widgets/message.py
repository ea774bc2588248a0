"""The turns of a conversation as they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message as Event
from textual.widgets import Static

from localllm.sanitize import sanitize, sanitize_line
from localllm.store.chats.records import ReplyStats, Turn
from localllm.tui.keymap import bindings
from localllm.tui.widgets.plain import Plain
from localllm.tui.widgets.reply import ReplyBody, Thought

FOLDED_LINES = 24
"""A message of the person's that is longer is folded to its first lines: files may stand in it."""
Wish = Literal["copy", "copy_code", "edit", "again", "go_on", "previous", "next", "links", "up", "down", "leave"]
ENDINGS = {
    "complete": "",
    "stopped": "stopped, the part above is kept · ",
    "cut": "cut off · ",
    "writing": "being written in another window · ",
}


class Links(Static):
    """A line of things to click, each a wish of the message that it stands in."""

    def action_wish(self, wish: Wish) -> None:
        self.query_ancestor(TurnMessage).action_wish(wish)


class TurnMessage(Vertical, Plain, can_focus=True):
    """A turn: who wrote it, its text, and a line of links. Reached with Ctrl+Up, or with the mouse."""

    FOCUS_ON_CLICK = False  # whoever clicks and then types means the input
    BINDINGS = bindings("message")

    class Wished(Event):
        """The person wants something done with this turn."""

        def __init__(self, sender: TurnMessage, wish: Wish) -> None:
            super().__init__()
            self.message, self.wish = sender, wish

    def __init__(self, turn: Turn | None) -> None:
        """`turn` None for one that has not been saved yet."""
        super().__init__(classes="message")
        self.turn = turn

    @property
    def text(self) -> str:
        """What is copied: as it was written."""
        return ""

    @property
    def branches(self) -> tuple[int, ...]:
        return self.turn.siblings if self.turn else ()

    def set_turn(self, turn: Turn) -> None:
        """It was saved, or has changed."""
        self.turn = turn
        self.show_links()

    def links(self) -> list[tuple[Wish, str]]:
        """What can be clicked, besides the branches."""
        return []

    def show_links(self) -> None:
        """Draw the line of links, and which branch this is."""
        for label in self.query(Links):
            parts = [f"[@click=wish('{wish}')]{what}[/]" for wish, what in self.links()]
            if self.turn is not None and len(self.branches) > 1:
                at = self.branches.index(self.turn.id) + 1
                parts.append(f"[@click=wish('previous')]◂[/] {at}/{len(self.branches)} [@click=wish('next')]▸[/]")
            label.update(Content.from_markup("  ".join(parts)))

    def action_wish(self, wish: Wish) -> None:
        self.post_message(self.Wished(self, wish))

    def action_unfold(self) -> None:
        """Fold or unfold what can be."""

    def action_copy(self) -> None:
        self.action_wish("copy")

    def action_copy_code(self) -> None:
        self.action_wish("copy_code")

    def action_edit(self) -> None:
        self.action_wish("edit")

    def action_again(self) -> None:
        self.action_wish("again")

    def action_go_on(self) -> None:
        self.action_wish("go_on")

    def action_previous(self) -> None:
        self.action_wish("previous")

    def action_next(self) -> None:
        self.action_wish("next")

    def action_links(self) -> None:
        self.action_wish("links")

    def action_up(self) -> None:
        self.action_wish("up")

    def action_down(self) -> None:
        self.action_wish("down")

    def action_leave(self) -> None:
        self.action_wish("leave")


class UserMessage(TurnMessage):
    """What the person wrote, as they wrote it."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(turn)
        self._folded = turn.content.count("\n") >= FOLDED_LINES or len(turn.content) > 80 * FOLDED_LINES

    def compose(self) -> ComposeResult:
        with Horizontal(classes="top"):
            yield Static(Content("You"), classes="author")
            yield Links(classes="actions links")
        yield Static(self._shown(), classes="body")

    def on_mount(self) -> None:
        self.show_links()

    @property
    def text(self) -> str:
        assert self.turn is not None
        return self.turn.content

    def links(self) -> list[tuple[Wish, str]]:
        return [("copy", "copy"), ("edit", "edit")]

    def action_unfold(self) -> None:
        self._folded = not self._folded
        self.query_one(".body", Static).update(self._shown())

    def on_click(self) -> None:
        if len(self._cut()) < len(self.text):
            self.action_unfold()

    def _shown(self) -> Content:
        if not self._folded:
            return Content(sanitize(self.text))
        cut = self._cut()
        lines = self.text[len(cut) :].count("\n")
        more = f"\n▸ {lines} more lines, {len(self.text) - len(cut)} characters · click or Space unfolds"
        return Content.assemble(sanitize(cut), (more, "dim") if len(cut) < len(self.text) else "")

    def _cut(self) -> str:
        lines = self.text.splitlines(keepends=True)
        if len(lines) <= FOLDED_LINES and len(self.text) <= 80 * FOLDED_LINES:
            return self.text
        return "".join(lines[: FOLDED_LINES // 3])[: 80 * FOLDED_LINES // 3].rstrip("\n")


class AssistantMessage(TurnMessage):
    """A reply: who wrote it, its Markdown as it streams in, and how it ended."""

    def __init__(self, turn: Turn, *, live: bool = False) -> None:
        """`live` for a reply that is on its way here."""
        super().__init__(turn)
        self.author = sanitize_line(turn.author) or "model"
        self.live = live
        self.body = ReplyBody(sanitize(turn.content))

    def compose(self) -> ComposeResult:
        yield Static(Content(self.author), classes="author")
        yield self.body
        if self.turn is not None and self.turn.source:
            yield self._source(self.turn)
        with Horizontal(classes="bottom"):
            yield Static(Content("…" if self.live else self._ending()), classes="ending", markup=False)
            yield Links(classes="actions links")

    def on_mount(self) -> None:
        if not self.live:
            self.show_links()

    @property
    def text(self) -> str:
        """The Markdown so far, cleaned."""
        return self.body.text

    def links(self) -> list[tuple[Wish, str]]:
        cut = self.turn is not None and self.turn.state in ("cut", "stopped")
        return [("copy", "copy"), ("again", "again"), *([("go_on", "continue")] if cut else [])]  # type: ignore[list-item]

    def write(self, text: str, shown: Callable[[], object] = lambda: None) -> None:
        """Append to the reply; `shown` is called when it is on its way to the screen."""
        self.body.write(text, shown)

    async def finish(self, turn: Turn | None, why: str = "") -> None:
        """Draw what is outstanding, and say how it ended; `why` it was cut, where that is known."""
        self.live = False
        await self.body.finish()
        if turn is not None:
            self.turn = turn
            self.query_one(".ending", Static).update(Content(self._ending(why)))
            if turn.source:
                await self.query(".source").remove()
                await self.mount(self._source(turn), after=self.body)
            self.show_links()

    def show_failure(self, text: str) -> None:
        self.query_one(".ending", Static).update(Content(text))

    def _source(self, turn: Turn) -> Static:
        """Where it was looked up."""
        return Static(Content(sanitize_line(turn.source)), classes="source", markup=False)

    def action_unfold(self) -> None:
        for thought in self.query(Thought):
            thought.toggle()

    def _ending(self, why: str = "") -> str:
        assert self.turn is not None
        ending = ENDINGS[self.turn.state]
        if why and self.turn.state == "cut":
            ending = f"cut: {why} · "
        return (ending + said(self.turn.stats)).removesuffix(" · ")


def said(stats: ReplyStats) -> str:
    """What a reply cost, in words; empty where nobody measured it."""
    if not stats.tokens:
        return ""
    return f"{stats.tokens} tokens · {stats.tokens_per_second:.1f} tokens/s · first after {stats.first_token:.2f} s"


class Note(Static):
    """A line between messages: a setting changed here."""

    def __init__(self, text: str) -> None:
        super().__init__(Content(f"─ {sanitize(text)}"), classes="note", markup=False)
