"""Work in threads may end after the screen that began it was left."""

from __future__ import annotations

from typing import Any

from textual.screen import Screen


def is_here(screen: Screen[Any]) -> bool:
    """Whether a screen can still be drawn on: one that is being left loses its widgets before it is detached."""
    return screen.is_attached and screen.display
