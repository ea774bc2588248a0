"""What a widget around a reply that grows looks like, and that it is laid out once each time."""

from __future__ import annotations

from textual.geometry import Region, Size
from textual.reactive import Reactive
from textual.strip import Strip
from textual.widget import Widget


class Growing(Widget):
    """Its size is known once it is laid out; elsewhere each new size makes the screen be laid out and drawn once more.

    To be named last among the bases: a stylesheet is inherited from the first.
    """

    virtual_size = Reactive(Size(0, 0), repaint=False)


class Plain(Growing):
    """Draws one line of its border and its background, however many there are: a long reply has thousands.

    To be named last among the bases: a stylesheet is inherited from the first.
    """

    def render_lines(self, crop: Region) -> list[Strip]:
        return super().render_lines(Region(crop.x, 0, crop.width, 1)) * crop.height

    def render_line(self, y: int) -> Strip:
        return Strip.blank(self.size.width, self.visual_style.rich_style)
