"""Where a text may be cut: before headings, between paragraphs, after sentences, between words, between graphemes.

Every search here moves forward over the text once, whatever the text is: a run of a million dots or blanks is no trap.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

WORD, SENTENCE, PARAGRAPH, HEADING = range(4)
"""Kinds of borders; the higher, the better a place to cut."""

_BLOCK = re.compile(r"\n(?:[ \t\r]*\n)+|\n(?=#{1,6}[ \t])")
_HEADING = re.compile(r"#{1,6}[ \t]+\S|(?i:chapter|part|book|section|kapitel|chapitre)[ \t]+(?:\d+|[IVXLC]+)\b")
_SENTENCE = re.compile(
    r"(?<![.!?…])[.!?…]++[\"'”’»)\]]*+\s+"  # only from the first of a run of signs: a run is looked at once
    r"|[。！？｡]++[」』）”’]*+\s*"  # noqa: RUF001 - these signs and the next need no blank after them
    r"|[؟۔।॥։።។၊။]++[\"'”’»)\]]*+\s*"  # noqa: RUF001
    r"|\n+"
)
_ABBREVIATION = re.compile(
    r"\b(?:[A-Za-z]|Mrs?|Ms|Dr|Prof|St|Sr|Jr|vs|etc|cf|Fig|No|Nr|Vol|pp|ca|al|e\.g|i\.e|z\.B|bzw|usw|Mme)\.\s+\Z"
)
_BLANKS = (" ", "\n", "\t", "\u3000", "、", "，", "；", ",", ";")  # noqa: RUF001
_ZWJ = "\u200d"
_FURTHEST = 64  # characters that a cut is moved at most, to leave a grapheme whole


def blocks(text: str) -> Iterator[tuple[int, int]]:
    """(end, kind of border there) of headings and paragraphs, which together are the text."""
    start = 0
    for match in _BLOCK.finditer(text):
        heading = _HEADING.match(text, start) is not None and match.start() - start < 200
        # between a heading and what it heads is the last place to cut
        yield match.end(), WORD if heading else HEADING if _HEADING.match(text, match.end()) else PARAGRAPH
        start = match.end()
    if start < len(text):
        yield len(text), PARAGRAPH


def sentences(text: str, start: int, end: int) -> Iterator[int]:
    """Ends of the sentences and lines of text[start:end], the blanks after them included; the last one is `end`."""
    last = start
    for match in _SENTENCE.finditer(text, start, end):
        if match.end() < end and not _goes_on(text, match):
            yield match.end()
            last = match.end()
    if last < end:
        yield end


def _goes_on(text: str, match: re.Match[str]) -> bool:
    """A dot after an abbreviation or an initial, or before a small letter, ends no sentence."""
    if text[match.start()] not in ".…" or "\n\n" in match[0]:
        return False
    return text[match.end()].islower() or bool(_ABBREVIATION.search(text[max(0, match.start() - 8) : match.end()]))


def word_border(text: str, start: int, end: int, furthest: int) -> int:
    """A place to cut between `start` and `end`, after a blank or a comma in the second half if there is one."""
    found = max(text.rfind(blank, (start + end) // 2, end) for blank in _BLANKS)
    return found + 1 if found >= 0 else grapheme_border(text, start, end, furthest)


def grapheme_border(text: str, start: int, end: int, furthest: int) -> int:
    """The last place up to `end` that cuts no combined character, else the next up to `furthest`, else `end`."""
    before = range(end, max(start, end - _FURTHEST), -1)
    after = range(end + 1, min(furthest, end + _FURTHEST) + 1)
    return next((cut for cut in (*before, *after) if cut >= len(text) or not _joined(text, cut)), end)


def _joined(text: str, cut: int) -> bool:
    """Whether the characters before and after the cut are one to the reader."""
    before, after = text[cut - 1], text[cut]
    if after < "\u0300":
        return before == "\r" and after == "\n"
    if unicodedata.category(after) in ("Mn", "Mc", "Me") or before == _ZWJ or after == _ZWJ:
        return True
    if unicodedata.combining(before) == 9:  # a virama joins the next letter of an Indic script
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":  # skin tones, tags of flags
        return True
    if "\u1160" <= after <= "\u11ff":  # vowels and finals of a Hangul syllable
        return True
    return _regional(after) and _regional_before(text, cut) % 2 == 1


def _regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regional_before(text: str, cut: int) -> int:
    """Letters of flags right before the cut: they go in pairs."""
    count = 0
    while count < min(cut, _FURTHEST) and _regional(text[cut - 1 - count]):
        count += 1
    return count
