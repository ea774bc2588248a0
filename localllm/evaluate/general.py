"""Text that has nothing to do with what a person teaches, to see what a model forgets over it.

`general.txt` was written for this: a paragraph each of story, science, cooking, figures, code, speech, law, history,
data and a letter.
"""

from __future__ import annotations

from pathlib import Path


def paragraphs() -> tuple[str, ...]:
    """The paragraphs, each to be read by itself."""
    text = Path(__file__).with_name("general.txt").read_text("utf-8")
    return tuple(part.strip() for part in text.split("\n\n"))
