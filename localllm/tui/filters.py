"""The last gate before the terminal.

Text is cleaned where it enters the app, but a parser in between can make a control character again: Markdown decodes
`&#x202e;` and the `%1b` of a link. This filter sees every line that is drawn, by whatever widget, and removes what acts
on a terminal or hides in it. Removed and not shown, because the layout has by then given such characters no width.
"""

from __future__ import annotations

import re

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


class ControlFilter(LineFilter):
    """Removes control characters from the text of segments."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if not any(_FORBIDDEN.search(segment.text) for segment in segments):
            return segments
        return [Segment(_FORBIDDEN.sub("", text), style, control) for text, style, control in segments]
