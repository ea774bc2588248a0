"""The text of a reply as it streams in: its thought folded, its Markdown drawn a few times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, thread_time

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from localllm.tasks.thinking import CLOSE, OPEN, may_think, split_thought
from localllm.tui.widgets.flow import MarkdownFlow
from localllm.tui.widgets.plain import Plain

FRAME_SECONDS, LONGEST_FRAME_SECONDS = 0.08, 0.5
"""Between two drawings of a reply: what comes in meanwhile is drawn at once."""
SHARE = 0.05
"""Of a core, at most, for drawing: the engine needs them all."""
TYPING_SECONDS, LONGEST_WAIT_SECONDS = 0.06, 0.25
"""After a key the reply waits, so that the next key is not kept waiting; but not for longer than this."""


class Thought(Vertical):
    """What a model thought before it spoke; one line until it is unfolded."""

    def __init__(self, text: str = "", *, open_ended: bool = False) -> None:
        super().__init__(classes="thought")
        self.text = text
        self.open_ended = open_ended
        self.folded = True

    def compose(self) -> ComposeResult:
        yield Static(classes="thought-title links", markup=False)
        yield MarkdownFlow(classes="thought-text")

    def on_mount(self) -> None:
        self.show(self.text, open_ended=self.open_ended)

    def show(self, text: str, *, open_ended: bool) -> None:
        """The thought so far; `open_ended` while it goes on."""
        self.text, self.open_ended = text, open_ended
        words = len(text.split())
        what = "thinking …" if open_ended else "thought"
        how = "click or Space unfolds" if self.folded else "click or Space folds"
        title, body = self.query_one(Static), self.query_one(MarkdownFlow)
        title.update(Content(f"{'▸' if self.folded else '▾'} {what} {words} words · {how}"), layout=False)
        body.display = not self.folded
        if not self.folded:
            shown, text = body.text, text.strip()
            if text.startswith(shown):
                body.append(text[len(shown) :])
            else:
                body.reset(text)

    def toggle(self) -> None:
        """Fold or unfold."""
        self.folded = not self.folded
        self.show(self.text, open_ended=self.open_ended)

    def on_click(self) -> None:
        self.toggle()


class ReplyBody(Vertical, Plain):
    """Takes text in pieces of any size; `text` is all of it, cleaned by whoever wrote it."""

    def __init__(self, text: str = "") -> None:
        super().__init__(classes="body")
        thought, said = split_thought(text)
        self._thought = None if thought is None else Thought(thought, open_ended=not said and CLOSE not in text)
        self._flow = MarkdownFlow(said)
        self._pieces: list[str] = [text]
        self._incoming: list[str] = []
        self._wake = asyncio.Event()
        self._drawing: asyncio.Task[None] | None = None
        self._shown: Callable[[], object] = lambda: None
        self._over = asyncio.Event()
        self._undecided = ""  # the beginning, while it may still become a thought
        self._thinking = thought if self._thought is not None and self._thought.open_ended else None
        self._decided = bool(said) or thought is not None
        self._tail = ""  # the last characters of what is said

    def compose(self) -> ComposeResult:
        if self._thought is not None:
            yield self._thought
        yield self._flow

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def write(self, text: str, shown: Callable[[], object] = lambda: None) -> None:
        """Append; it is drawn soon, and then `shown` is called, of several only the last."""
        if not text:
            shown()
            return
        self._shown = shown
        self._pieces.append(text)
        self._incoming.append(text)
        self._wake.set()
        if self._drawing is None:
            self._drawing = asyncio.create_task(self._draw())

    async def finish(self) -> None:
        """Draw what is outstanding."""
        self._over.set()
        self._wake.set()
        if self._drawing is not None:
            await self._drawing
            self._drawing = None
        if self._undecided:
            self._flow.append(self._undecided)
            self._undecided = ""
        if self._thinking is not None:
            await self._think(self._thinking, open_ended=False)
        self._over.clear()

    def on_unmount(self) -> None:
        if self._drawing is not None:
            self._drawing.cancel()

    # When

    async def _draw(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._let_type()
            spent = thread_time()
            new = "".join(self._incoming)
            self._incoming.clear()
            if new:
                await self._take(new)
                self._shown()
            if self._over.is_set() and not self._incoming:
                return
            await self._sleep(FRAME_SECONDS)
            # What it took to lay out and to paint is known only now.
            await self._sleep(min((thread_time() - spent) / SHARE, LONGEST_FRAME_SECONDS) - FRAME_SECONDS)

    async def _let_type(self) -> None:
        end = monotonic() + LONGEST_WAIT_SECONDS
        while (now := monotonic()) < end and (since := now - getattr(self.app, "typed_at", 0.0)) < TYPING_SECONDS:
            if self._over.is_set():
                return
            await self._sleep(TYPING_SECONDS - since)

    async def _sleep(self, seconds: float) -> None:
        """Until it is time, or the reply over."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), seconds)

    # A thought, or not

    async def _take(self, new: str) -> None:
        if self._thinking is not None:
            await self._go_on_thinking(new)
        elif self._decided:
            self._flow.append(new)
            closed, self._tail = CLOSE in self._tail + new, (self._tail + new)[-len(CLOSE) :]
            if closed:
                await self._fold_what_was_said()
        else:
            self._undecided += new
            start = self._undecided.lstrip()
            if start.startswith(OPEN):
                new, self._undecided, self._thinking = start[len(OPEN) :], "", ""
                await self._go_on_thinking(new)
            elif not may_think(self._undecided):
                new, self._undecided, self._decided = self._undecided, "", True
                await self._take(new)

    async def _go_on_thinking(self, new: str) -> None:
        assert self._thinking is not None
        self._thinking += new
        thought, closed, rest = self._thinking.partition(CLOSE)
        await self._think(thought.strip(), open_ended=not closed)
        if closed:
            self._thinking, self._decided = None, True
            self._flow.append(rest.lstrip())

    async def _fold_what_was_said(self) -> None:
        """The template had opened the thought: what came before its end was one."""
        thought, rest = split_thought(self.text)
        if thought is None or self._thought is not None:
            return
        self._flow.reset(rest)
        await self._think(thought, open_ended=False)

    async def _think(self, text: str, *, open_ended: bool) -> None:
        if self._thought is not None:
            self._thought.show(text, open_ended=open_ended)
        else:
            self._thought = Thought(text, open_ended=open_ended)
            await self.mount(self._thought, before=0)
