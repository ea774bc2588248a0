"""The last line of a screen: the keys that work now, each to be clicked.

One widget for all of them. Keys come to work and cease to several times while a conversation is opened; with a widget
for each key that took longer than drawing the conversation.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget


@dataclass(frozen=True)
class ShownKey:
    """A key as it stands in the line."""

    key: str
    """To press it."""
    label: str
    """How people call it."""
    what: str
    enabled: bool


class KeyBar(Widget, can_focus=False):
    """`compact` leaves out half of the blanks. The wheel moves the keys that have no room into view."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES = {"key-bar--key", "key-bar--what", "key-bar--over", "key-bar--idle"}
    DEFAULT_CSS = """
    KeyBar {
        dock: bottom;
        height: 1;
        color: $footer-foreground;
        background: $footer-background;
        text-wrap: nowrap;
        & > .key-bar--key {
            color: $footer-key-foreground;
            background: $footer-key-background;
            text-style: bold;
        }
        & > .key-bar--what { color: $footer-description-foreground; background: $footer-description-background; }
        & > .key-bar--over { background: $block-hover-background; }
        & > .key-bar--idle { text-style: dim; }
    }
    """

    def __init__(self, *, compact: bool = False) -> None:
        super().__init__()
        self._compact = compact
        self._keys: list[ShownKey] = []
        self._first = 0  # of those that are shown
        self._over: int | None = None  # that the mouse is on
        self._asked = False

    @property
    def keys(self) -> list[ShownKey]:
        """In their order."""
        return self._keys

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def on_unmount(self) -> None:
        self.screen.bindings_updated_signal.unsubscribe(self)

    def _changed(self, screen: Screen[object]) -> None:
        """Look at them once, however often they change until the screen is drawn."""
        if screen.app.app_focus and not self._asked:
            self._asked = True
            self.call_after_refresh(self._look)

    def _look(self) -> None:
        self._asked = False
        if not self.is_attached or self.screen is not self.app.screen:
            return
        found: dict[str, ShownKey] = {}  # an action's first key stands for all of them
        for _, binding, enabled, _ in self.screen.active_bindings.values():
            if binding.show and binding.action not in found:
                label = self.app.get_key_display(binding)
                found[binding.action] = ShownKey(binding.key, label, binding.description, enabled)
        if (keys := list(found.values())) != self._keys:
            self._keys, self._first, self._over = keys, 0, None
            self.refresh()

    # Drawing

    def _parts(self) -> list[tuple[int, Content]]:
        """The keys in view by their index, each with what separates it from the next."""
        return [(index, self._drawn(index)) for index in range(self._first, len(self._keys))]

    def _drawn(self, index: int) -> Content:
        key = self._keys[index]
        key_style, what_style = (self.get_visual_style(f"key-bar--{part}", partial=True) for part in ("key", "what"))
        if self._compact:
            drawn = Content.assemble((key.label, key_style), (f" {key.what}", what_style))
        else:
            drawn = Content.assemble((f" {key.label} ", key_style), (f"{key.what} ", what_style))
        for name, holds in (("over", index == self._over), ("idle", not key.enabled)):
            if holds:
                drawn = drawn.stylize_before(self.get_visual_style(f"key-bar--{name}", partial=True))
        return drawn + " " if self._compact else drawn

    def render(self) -> Content:
        return Content("").join([drawn for _, drawn in self._parts()])

    # The mouse

    def _at(self, x: int) -> int | None:
        for index, drawn in self._parts():
            x -= drawn.cell_length
            if x < 0:
                return index
        return None

    def _move_over(self, index: int | None) -> None:
        if index != self._over:
            self._over = index
            self.refresh()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self._move_over(self._at(event.x))

    def on_leave(self) -> None:
        self._move_over(None)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if (index := self._at(event.x)) is None:
            return
        if self._keys[index].enabled:
            self.app.simulate_key(self._keys[index].key)
        else:
            self.app.bell()

    def _begin_at(self, first: int) -> None:
        self._first = first
        self.refresh()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        if sum(drawn.cell_length for _, drawn in self._parts()) > self.size.width:
            self._begin_at(self._first + 1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        if self._first > 0:
            self._begin_at(self._first - 1)
