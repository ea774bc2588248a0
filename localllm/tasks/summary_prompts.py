"""What the model is asked for a summary: the instruction first, so that it is computed once, then the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from localllm.errors import UsageError

Style = Literal["paragraph", "bullets", "headline"]
Length = Literal["short", "medium", "long"]
STYLES: tuple[Style, ...] = ("paragraph", "bullets", "headline")
LENGTHS: tuple[Length, ...] = ("short", "medium", "long")

PART_TOKENS = 192
"""Longest answer for a part, and for a summary of which nothing is said."""
_PROSE = {"short": "in one or two sentences", "medium": "in one paragraph", "long": "in three to five paragraphs"}
_BULLETS = {"short": 3, "medium": 6, "long": 12}
_TOKENS = {"short": 128, "medium": 256, "long": 768}
_SUMMARIZE = "Summarize the following text"
_COMBINE = "Combine these summaries of the parts of one text, in order, into one"
_GO_ON = "Below are a summary of the beginning of a text and its next part. Write one summary of both"
_PLACEHOLDER = re.compile(r"\{(text|focus|length|style|language)\}")


@dataclass(frozen=True)
class Wish:
    """How the summary of a document should be; what is None is left to the model."""

    length: Length | None = None
    style: Style | None = None
    focus: str | None = None
    """A question that it should answer."""
    language: str | None = None
    template: str | None = None
    """A prompt of the person's own, with {text} where the text goes."""
    schema: str | None = None
    """A JSON schema that the summary, and no part's, must match."""

    def __post_init__(self) -> None:
        """Raises UsageError for a template that would not show the model the text."""
        if self.template is not None and "{text}" not in self.template:
            raise UsageError("The template has no {text}: the model would not see the text.", "Write {text} into it.")

    def max_tokens(self) -> int:
        """The longest answer, where the person names none."""
        if self.schema is not None:
            return 512
        if self.style == "headline":
            return 48
        return _TOKENS[self.length] if self.length else PART_TOKENS


@dataclass(frozen=True)
class Prompts:
    """The user's turn for each kind of step. Only what is `final` is told about length, style and schema."""

    wish: Wish

    def text(self, text: str, *, final: bool) -> str:
        """For a part of a document, or (`final`) a whole one."""
        return self._fill(f"{_SUMMARIZE}{self._form(final)}.", text, final)

    def combine(self, summaries: list[str], *, final: bool) -> str:
        """For summaries of parts, one in a line."""
        form = self._form(final)
        return self._fill(
            f"{_COMBINE} summary{form}." if form else f"{_COMBINE} short summary.", _lines(summaries), final
        )

    def refine(self, summary: str, text: str, *, final: bool) -> str:
        """For what is known of the text so far and the part that follows."""
        both = f"Summary so far: {summary}\n\nThe text goes on:\n\n{text}"
        return self._fill(f"{_GO_ON}{self._form(final)}.", both, final)

    def _fill(self, instruction: str, text: str, final: bool) -> str:
        wish = self.wish
        if wish.template is not None:
            values = {
                "text": text,
                **{name: getattr(wish, name) or "" for name in ("focus", "length", "style", "language")},
            }
            prompt = _PLACEHOLDER.sub(lambda found: values[found[1]], wish.template)
            return f"{self._schema()}\n\n{prompt}" if final and wish.schema is not None else prompt
        if wish.focus:
            instruction += f" Say what it tells about this question: {wish.focus}"
        if wish.language:
            instruction += f" Write in {wish.language}."
        if final and wish.schema is not None:
            instruction += f" {self._schema()}"
        return f"{instruction}\n\n{text}"

    def _schema(self) -> str:
        return f"Answer in JSON that matches this schema: {' '.join((self.wish.schema or '').split())}"

    def _form(self, final: bool) -> str:
        wish = self.wish
        if not final or wish.schema is not None or not (wish.style or wish.length):
            return ""
        if wish.style == "headline":
            return " in one line, as a headline"
        if wish.style == "bullets":
            return (
                f' as a list of up to {_BULLETS[wish.length or "medium"]} points, each on a line that begins with "- "'
            )
        return f" {_PROSE[wish.length or 'medium']}"


def _lines(summaries: list[str]) -> str:
    return "\n".join(" ".join(summary.split()) for summary in summaries)
