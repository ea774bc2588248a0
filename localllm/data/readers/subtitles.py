"""SubRip and WebVTT subtitles: what is said, without numbers and times, captions that roll up said once."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from localllm.data.readers.base import Extract
from localllm.data.readers.text import decode

_CLOCK = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}")
_SPEAKER = re.compile(r"<v(?:\.[^\s>]{0,100})?[ \t]+([^>]{1,100})>")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|<\d[\d:.]{0,20}>|\{\\[^{}]{0,100}\}")
_PAUSE = 4.0  # seconds without a caption that begin a new paragraph
_TOUCHING = 0.2  # seconds between captions of which one rolls up into the next


def read(content: bytes) -> Extract:
    """The spoken text, one caption line a line. Raises DataError for a binary file."""
    text, encoding, warnings = decode(content)
    said: list[str] = []
    latest: list[str] = []
    last = None
    for start, end, lines in _cues(text):
        if last is not None and start - last > _PAUSE:
            said.append("")
        rolling = last is not None and start - last <= _TOUCHING
        new = _new(latest, lines) if rolling else lines
        if rolling and new and latest and new[0].startswith(latest[-1] + " ") and said[-1] == latest[-1]:
            said.pop()  # the line was still being said
        said.extend(new)
        latest, last = lines, max(end, last or end)
    return Extract("\n".join(said).strip(), encoding=encoding, warnings=warnings)


def _new(before: list[str], now: list[str]) -> list[str]:
    """The lines of a caption that were not the last ones of the caption before."""
    for shared in range(min(len(before), len(now)), 0, -1):
        if before[-shared:] == now[:shared]:
            return now[shared:]
    return now


def _cues(text: str) -> Iterator[tuple[float, float, list[str]]]:
    """(start, end in seconds, lines) of every caption; whatever is outside of captions is left out."""
    times, lines = None, list[str]()
    # a caption ends at an empty line; some files have none, and the number of the next is then in the way
    for line in [*text.splitlines(), ""]:
        match = _TIMES.match(line)
        if match or not line.strip():
            if times is not None:
                if match and lines and lines[-1].strip().isdigit():
                    lines.pop()
                if spoken := [clean for raw in lines if (clean := _clean(raw))]:
                    yield *times, spoken
            times, lines = ((_seconds(match, 1), _seconds(match, 5)) if match else None), []
        elif times is not None:
            lines.append(line)


def _clean(line: str) -> str:
    line = _SPEAKER.sub(lambda match: f"{match[1].strip()}: ", line)
    return " ".join(html.unescape(_TAG.sub("", line)).split())


def _seconds(match: re.Match[str], first: int) -> float:
    hours, minutes, seconds, fraction = match.group(first, first + 1, first + 2, first + 3)
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000
