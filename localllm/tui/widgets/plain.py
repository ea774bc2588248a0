"""What a widget without a text of its own looks like: every line as the first."""

from __future__ import annotations

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


class Plain(Widget):
    """Draws one line of its border and its background, however many there are: a long reply has thousands.

    To be named last among the bases: a stylesheet is inherited from the first.
    """

    def render_lines(self, crop: Region) -> list[Strip]:
        return super().render_lines(Region(crop.x, 0, crop.width, 1)) * crop.height

    def render_line(self, y: int) -> Strip:
        return Strip.blank(self.size.width, self.visual_style.rich_style)
