"""The text of a reply as it streams in: its thought folded, its Markdown in sections."""

from __future__ import annotations

import asyncio
from time import monotonic

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from localllm.tasks.thinking import CLOSE, OPEN, may_think, split_thought
from localllm.tui.sections import SECTION_CHARACTERS, cut, sections
from localllm.tui.widgets.code import Section

FRAME_SECONDS = 0.05
"""Between two drawings of a reply: what comes in meanwhile is drawn at once."""


class Thought(Vertical):
    """What a model thought before it spoke; one line until it is unfolded."""

    def __init__(self, text: str = "", *, open_ended: bool = False) -> None:
        super().__init__(classes="thought")
        self.text = text
        self.open_ended = open_ended
        self.folded = True

    def compose(self) -> ComposeResult:
        yield Static(classes="thought-title links", markup=False)
        yield Static(classes="thought-text", markup=False)

    def on_mount(self) -> None:
        self.show(self.text, open_ended=self.open_ended)

    def show(self, text: str, *, open_ended: bool) -> None:
        """The thought so far; `open_ended` while it goes on."""
        self.text, self.open_ended = text, open_ended
        words = len(text.split())
        what = "thinking …" if open_ended else "thought"
        how = "click or Space unfolds" if self.folded else "click or Space folds"
        title, body = self.query(Static)
        title.update(Content(f"{'▸' if self.folded else '▾'} {what} {words} words · {how}"))
        body.display = not self.folded
        if not self.folded:
            body.update(Content(text.strip()))

    def toggle(self) -> None:
        """Fold or unfold."""
        self.folded = not self.folded
        self.show(self.text, open_ended=self.open_ended)

    def on_click(self) -> None:
        self.toggle()


class ReplyBody(Vertical):
    """Takes text in pieces of any size; `text` is all of it, cleaned by whoever wrote it."""

    def __init__(self, text: str = "") -> None:
        super().__init__(classes="body")
        self._initial = text
        self._pieces: list[str] = [text]
        self._incoming: list[str] = []
        self._wake = asyncio.Event()
        self._drawing: asyncio.Task[None] | None = None
        self._over = False
        self._undecided = ""  # the beginning, while it may still become a thought
        self._decided = False
        self._thinking: str | None = None
        self._tail = ""  # the text of the last section
        self._tried = 0  # how long it was when it could not be cut

    def compose(self) -> ComposeResult:
        thought, text = split_thought(self._initial)
        if thought is not None:
            yield Thought(thought, open_ended=not text and CLOSE not in self._initial)
        before: Section | None = None
        if text:
            self._decided = True
        for part in sections(text) if text else []:
            section = Section(part.section, before)
            before = section if part.continues_code else None
            self._tail = part.section
            yield section

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def write(self, text: str) -> None:
        """Append; it is drawn soon."""
        if not text:
            return
        self._pieces.append(text)
        self._incoming.append(text)
        self._wake.set()
        if self._drawing is None:
            self._drawing = asyncio.create_task(self._draw())

    async def finish(self) -> None:
        """Draw what is outstanding."""
        self._over = True
        self._wake.set()
        if self._drawing is not None:
            await self._drawing
            self._drawing = None
        if self._undecided:
            await self._say(self._undecided)
            self._undecided = ""
        if self._thinking is not None:
            await self._think(self._thinking, open_ended=False)
        self._over = False

    def on_unmount(self) -> None:
        if self._drawing is not None:
            self._drawing.cancel()

    async def _draw(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            started = monotonic()
            new = "".join(self._incoming)
            self._incoming.clear()
            if new:
                await self._take(new)
            if self._over and not self._incoming:
                return
            if not self._over:
                await asyncio.sleep(max(0.0, FRAME_SECONDS - (monotonic() - started)))

    # A thought, or not

    async def _take(self, new: str) -> None:
        if self._thinking is not None:
            await self._go_on_thinking(new)
        elif self._decided:
            await self._say(new)
            if CLOSE in new or CLOSE in self._tail[-len(new) - len(CLOSE) :]:
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
            if rest.lstrip():
                await self._say(rest.lstrip())

    async def _fold_what_was_said(self) -> None:
        """The template had opened the thought: what came before its end was one."""
        thought, rest = split_thought(self.text)
        if thought is None or self.query(Thought):
            return
        await self.query(Section).remove()
        self._tail = ""
        await self._think(thought, open_ended=False)
        if rest:
            await self._say(rest)

    async def _think(self, text: str, *, open_ended: bool) -> None:
        found = self.query(Thought)
        if found:
            found.first().show(text, open_ended=open_ended)
        else:
            await self.mount(Thought(text, open_ended=open_ended), before=0)

    # Markdown

    async def _say(self, new: str) -> None:
        found = self.query(Section)
        section = found.last() if found else None
        if section is None:
            section = Section()
            await self.mount(section)
        self._tail += new
        await section.append(new)
        if len(self._tail) >= SECTION_CHARACTERS + self._tried:
            await self._cut(section)

    async def _cut(self, section: Section) -> None:
        piece = cut(self._tail)
        if piece is None or not piece.rest:
            self._tried += 500  # not at every token
            return
        self._tried = 0
        self._tail = piece.rest
        following = Section(before=section if piece.continues_code else None)
        with self.app.batch_update():
            await section.update(piece.section)
            await self.mount(following)
            await following.append(piece.rest)
