"""For widgets that grow with a reply, many times a second: they are laid out once, and painted where they are seen."""

from __future__ import annotations

from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget


class Growing(Widget):
    """Its size follows from what is in it, so that being told of it is no reason to lay out all once more."""

    def _size_updated(self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True) -> bool:
        return super()._size_updated(size, virtual_size, container_size, layout=False)


class Plain(Growing):
    """Without a text of its own: one line of border and background is drawn, however many there are."""

    def render_lines(self, crop: Region) -> list[Strip]:
        return super().render_lines(Region(crop.x, 0, crop.width, 1)) * crop.height

    def render_line(self, y: int) -> Strip:
        return Strip.blank(self.size.width, self.visual_style.rich_style)
