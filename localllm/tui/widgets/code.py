"""Code blocks: highlighted, named by their language, and copied by a click or from the palette."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widgets import Label, Markdown, Static
from textual.widgets.markdown import MarkdownFence

from localllm.sanitize import sanitize_line
from localllm.tui.markdown import reply_parser


class CopyLink(Static):
    """A word to click."""

    def __init__(self) -> None:
        super().__init__(Content.from_markup("[@click=copy]copy[/]"), classes="code-copy links")

    def action_copy(self) -> None:
        self.query_ancestor(CodeBlock).copy()


class CodeBlock(MarkdownFence):
    """A fence with a line above it: the language, and a link that copies."""

    class Copied(Message):
        """The person wants this code in the clipboard."""

        def __init__(self, code: str) -> None:
            super().__init__()
            self.code = code

    def compose(self) -> ComposeResult:
        with Horizontal(classes="code-bar"):
            yield Static(Content(sanitize_line(self.lexer) or "code"), classes="code-language")
            yield CopyLink()
        yield Label(self._highlighted_code, id="code-content", expand=True)

    def copy(self) -> None:
        """Have the whole of it copied."""
        section = self._markdown
        assert isinstance(section, Section)
        self.post_message(self.Copied(section.whole_code(self)))


class Section(Markdown):
    """A part of a reply."""

    BLOCKS = {**Markdown.BLOCKS, "fence": CodeBlock, "code_block": CodeBlock}

    def __init__(self, text: str = "", before: Section | None = None) -> None:
        """`before` is the section whose last code block this one's first goes on with."""
        super().__init__(text, parser_factory=reply_parser, open_links=False)
        self.before, self.after = before, None
        if before is not None:
            before.after = self

    after: Section | None

    def codes(self) -> list[CodeBlock]:
        return list(self.query(CodeBlock))

    def whole_code(self, block: CodeBlock) -> str:
        """The code of a block, with what of it stands in the sections around."""
        codes = self.codes()
        parts = [block.code]
        if block is codes[0]:
            section = self
            while (earlier := section.before) is not None:
                section = earlier
                parts.insert(0, section.codes()[-1].code)
                if len(section.codes()) > 1:
                    break
        if block is codes[-1]:
            section = self
            while (later := section.after) is not None:
                section = later
                parts += [code.code for code in section.codes()[:1]]
                if len(section.codes()) > 1:
                    break
        return "\n".join(parts)
