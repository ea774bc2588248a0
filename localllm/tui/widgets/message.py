"""The turns of a conversation as they are drawn."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Markdown, Static
from textual.widgets.markdown import MarkdownStream

from localllm.sanitize import sanitize
from localllm.tui.markdown import reply_parser


class UserMessage(Vertical):
    """What the person wrote, as they wrote it."""

    def __init__(self, text: str) -> None:
        super().__init__(classes="message")
        self.text = text

    def compose(self) -> ComposeResult:
        yield Static(Content("You"), classes="author")
        yield Static(Content(sanitize(self.text)), classes="body")

    def mark_lost(self) -> None:
        """Say that this turn is not part of the conversation."""
        self.query_one(".author", Static).update(Content("You (not kept)"))


class AssistantMessage(Vertical):
    """A reply: who wrote it, its Markdown as it streams in, and how it ended."""

    def __init__(self, author: str) -> None:
        super().__init__(classes="message")
        self.author = author
        self.body = Markdown(parser_factory=reply_parser, open_links=False, classes="body")
        self._stream: MarkdownStream | None = None

    def compose(self) -> ComposeResult:
        yield Static(Content(self.author), classes="author")
        yield self.body
        yield Static(Content("…"), classes="ending", markup=False)

    @property
    def text(self) -> str:
        """The Markdown so far, cleaned."""
        return self.body.source

    async def write(self, text: str) -> None:
        """Append to the reply."""
        if not text:
            return  # a stream that is stopped before its first write raises CancelledError into our message loop
        if self._stream is None:
            self._stream = Markdown.get_stream(self.body)
        await self._stream.write(text)

    async def finish(self, ending: str) -> None:
        """Draw what is outstanding, and say how it ended."""
        if self._stream is not None:
            await self._stream.stop()
            self._stream = None
        self.query_one(".ending", Static).update(Content(ending))


class Note(Static):
    """A line between messages: a setting changed here."""

    def __init__(self, text: str) -> None:
        super().__init__(Content(f"─ {sanitize(text)}"), classes="note", markup=False)
