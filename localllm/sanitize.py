"""Text from a model, a file or its metadata, made safe to show in a terminal.

Every control character except newline and tab is replaced by a visible sign of itself, so an escape sequence is shown
as the characters it consists of and does nothing: `ESC ]52;c;...` appears as `␛]52;c;...`. Characters that reorder or
hide text (bidirectional and zero-width controls) appear as `⟨U+202E⟩`. Carriage returns are dropped, so that a Windows
line ending is a newline and nothing overwrites the start of a line.

Each character is judged by itself, which makes the result the same at every split of a stream. The one exception are
the two joiners (ZWJ, ZWNJ), needed inside emoji and in the scripts that join letters: they wait for the next character.
"""

from __future__ import annotations

import re

_JOINERS = "\u200c\u200d"
_EMOJI = "\U0001f000-\U0001faff\u2190-\u2bff\ufe0f"
_JOINING_SCRIPTS = "\u0600-\u0dff\ufb50-\ufdff\ufe70-\ufefc"
_JOINED_CHARACTER = re.compile(f"[{_EMOJI}{_JOINING_SCRIPTS}]")

_INVISIBLE = (
    *(0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),  # fillers and marks
    *range(0x180B, 0x1810),  # Mongolian selectors
    *(0x200B, 0x200E, 0x200F),  # zero-width space, direction marks
    *range(0x2028, 0x202F),  # line and paragraph separators, embeddings, overrides
    *range(0x2060, 0x2070),  # word joiner, invisible operators, isolates, deprecated format characters
    *range(0xFFF9, 0xFFFC),  # interlinear annotation
    *range(0xE0000, 0xE1000),  # tags and supplementary selectors: text that nobody sees
)


def _visible() -> dict[int, str]:
    """What is shown in place of each character that must not reach a terminal."""
    table = {code: chr(0x2400 + code) for code in range(0x20)}  # the control pictures: ␀ ␁ … ␛ …
    table |= {code: f"⟨{code:02X}⟩" for code in range(0x80, 0xA0)}
    table |= {code: f"⟨U+{code:04X}⟩" for code in _INVISIBLE}
    table |= dict.fromkeys(range(55296, 57344), "�")  # lone surrogates cannot be encoded
    table |= {0x7F: "␡", 0x0D: ""}
    del table[0x09], table[0x0A]
    return table


_VISIBLE = _visible()


class Sanitizer:
    """Cleans a stream: the pieces returned by `feed`, then `flush`, together are `sanitize` of the whole."""

    def __init__(self) -> None:
        self._before = ""
        self._joiner = ""

    def feed(self, text: str) -> str:
        """The part of the cleaned text that is certain by now."""
        if not self._joiner and not any(joiner in text for joiner in _JOINERS):
            self._before = text[-1:] or self._before
            return text.translate(_VISIBLE)
        return "".join(map(self._feed_character, text))

    def flush(self) -> str:
        """What was still held back; the sanitizer is then as new."""
        held = self._show_joiner()
        self._before = ""
        return held

    def _feed_character(self, character: str) -> str:
        joined = self._joiner and all(map(_JOINED_CHARACTER.match, (self._before, character)))
        held, self._joiner = (self._joiner if joined else self._show_joiner()), ""
        if character in _JOINERS:
            self._joiner = character
            self._before = self._before if not held else ""
            return held
        self._before = character
        return held + character.translate(_VISIBLE)

    def _show_joiner(self) -> str:
        joiner, self._joiner = self._joiner, ""
        return f"⟨U+{ord(joiner):04X}⟩" if joiner else ""


def sanitize(text: str) -> str:
    """`text` with everything that could act on a terminal, or hide in it, made visible."""
    sanitizer = Sanitizer()
    return sanitizer.feed(text) + sanitizer.flush()


def sanitize_line(text: str) -> str:
    """`sanitize` for names and titles: one line, whatever the text holds."""
    return " ".join(sanitize(text).split())
