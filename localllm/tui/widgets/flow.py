"""Markdown that grows, in one widget: only what is new is read, and only what is seen is painted."""

from __future__ import annotations

from rich.segment import Segment
from textual.geometry import Region, Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style

from localllm.tui.blocks import Block, Splitter
from localllm.tui.drawing import BLANK, STYLES, Drawer, Line
from localllm.tui.links import code_blocks
from localllm.tui.widgets.plain import Growing


class MarkdownFlow(Growing):
    """`text` is all of it, cleaned by whoever wrote it."""

    COMPONENT_CLASSES = set(STYLES)
    ALLOW_SELECT = True

    class Copied(Message):
        """The person wants this code in the clipboard."""

        def __init__(self, code: str) -> None:
            super().__init__()
            self.code = code

    def __init__(self, text: str = "", classes: str | None = None) -> None:
        super().__init__(classes=classes)
        self._pieces: list[str] = []
        self._splitter = Splitter()
        self._drawer: Drawer | None = None  # None until the width is known
        self._lines: list[Line] = []
        self._kept = 0  # lines of blocks that are over
        self._painted: dict[int, Strip] = {}
        self.append(text)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def lines(self) -> list[Line]:
        """As they were last drawn."""
        return self._lines

    def drawn_at(self, width: int) -> list[Line]:
        """The lines at a width."""
        if self._drawer is None or self._drawer.width != width:
            self._drawer = Drawer(width)
            self._lines, self._kept = [], 0
            self._painted.clear()
            self._splitter = Splitter()  # reading it again costs less than keeping what was read
            self._draw(self._drawer, self._splitter.feed(self.text))
        return self._lines

    def append(self, text: str) -> None:
        """Go on with it."""
        if not text:
            return
        self._pieces.append(text)
        if self._drawer is not None:
            over = self._splitter.feed(text)
            before = len(self._lines)
            first = self._draw(self._drawer, over)
            rest = Region(0, first, self._drawer.width, max(before, len(self._lines)) - first)
            self.refresh(rest, layout=len(self._lines) != before)

    def reset(self, text: str = "") -> None:
        """Begin again."""
        self._pieces, self._splitter = [], Splitter()
        self._drawer = None
        self._painted.clear()
        self.append(text)
        self.refresh(layout=True)

    def codes(self) -> list[str]:
        """Every program in it."""
        return [code for _, code in code_blocks(self.text)]

    def action_copy_code(self, number: int) -> None:
        codes = self.codes()
        if number < len(codes):
            self.post_message(self.Copied(codes[number]))

    # Lines

    def _draw(self, drawer: Drawer, over: list[Block]) -> int:
        """Draw what is over now, and what is open; the first line that is not as before."""
        shown = self._lines[self._kept :]
        new: list[Line] = []
        for block in over:
            self._add(new, block, drawer)
        kept, codes, columns = self._kept + len(new), drawer.codes, drawer.columns
        for block in self._splitter.open:
            self._add(new, block, drawer)
        drawer.codes, drawer.columns = codes, columns
        if new or self._kept:
            new.append(BLANK)
        same = next((i for i, (a, b) in enumerate(zip(shown, new, strict=False)) if not _same(a, b)), None)
        first = self._kept + (min(len(shown), len(new)) if same is None else same)
        self._lines[self._kept :] = new
        self._kept = kept
        for y in [y for y in self._painted if y >= first]:
            del self._painted[y]
        return first

    def _add(self, lines: list[Line], block: Block, drawer: Drawer) -> None:
        drawn = drawer.draw(block)
        if drawn and not block.continues and (lines or self._kept):
            lines.append(BLANK)
        lines += drawn

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.drawn_at(width)) if width > 0 else 0

    # Paint

    def render_lines(self, crop: Region) -> list[Strip]:
        """Painted lines are kept here: the caches of a widget are emptied whenever its size changes.

        So there is neither border nor padding around them.
        """
        strips = [self.render_line(y) for y in crop.line_range]
        if crop.column_span != (0, self.size.width):
            strips = [strip.crop(*crop.column_span) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        if (strip := self._painted.get(y)) is None:
            strip = self._paint(self._lines[y] if y < len(self._lines) else BLANK, y, self.size.width)
            for line_filter in self.get_line_filters():
                strip = strip.apply_filter(line_filter, self.background_colors[1])
            self._painted[y] = strip
        return strip

    def _paint(self, line: Line, y: int, width: int) -> Strip:
        under = self.visual_style
        if line.under:
            under += self.get_visual_style(line.under, partial=True)
        content = line.content
        if (selection := self.text_selection) is not None and (span := selection.get_span(y)) is not None:
            start, end = span
            chosen = Style.from_styles(self.screen.get_component_styles("screen--selection"))
            content = content.stylize(chosen, start, len(content) if end == -1 else end)
        rendered = content.render(under, end="", parse_style=self._get_style)
        segments = [Segment(text, style.rich_style) for text, style in rendered if text]
        segments.append(Segment(" " * max(0, width - content.cell_length), under.rich_style))
        return Strip(segments, max(width, content.cell_length)).apply_offsets(0, y)

    def notify_style_update(self) -> None:
        self._painted.clear()
        super().notify_style_update()

    # What is selected with the mouse

    def selection_updated(self, selection: Selection | None) -> None:
        self._painted.clear()
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """As it was written, not as it was broken into lines."""
        text = ""
        for y, line in enumerate(self._lines):
            if (span := selection.get_span(y)) is None:
                continue
            start, end = span
            part = line.content.plain[start : len(line.content) if end == -1 else end]
            joint = "" if not text else "\n" if line.joint is None else line.joint
            text += joint + (part.lstrip() if text and line.joint is not None else part)
        return (text.rstrip("\n"), "\n") if text else None


def _same(one: Line, other: Line) -> bool:
    return one.under == other.under and one.content.is_same(other.content)
