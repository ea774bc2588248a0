"""What a reader of one format hands back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Extract:
    """The text of one document as a reader found it."""

    text: str
    title: str | None = None
    encoding: str | None = None
    """None for formats that say it themselves."""
    warnings: tuple[str, ...] = ()
    """What a person should know: pages left out, an encoding that was guessed."""
