"""Words as the index has them: lower case, compounds both joined and apart, synonyms replaced by one of them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_WORD = re.compile(r"[a-z0-9]+(?:[-_.+'/][a-z0-9]+)*")
_JOINTS = re.compile(r"[-_.+'/]")
_FILE = Path(__file__).with_name("synonyms.toml")
_LONGEST = 4
"""Words of the longest phrase that is a synonym."""
_ENDINGS = ("s", "es", "ed", "d", "ing")


@dataclass(frozen=True)
class Language:
    """What is known of words beside the entries."""

    synonyms: dict[tuple[str, ...], str]
    """A word or phrase -> the one that stands for its group."""
    stop: frozenset[str]
    """Words without a topic of their own."""


@cache
def language() -> Language:
    """From `synonyms.toml`."""
    table = tomllib.loads(_FILE.read_text("utf-8"))
    synonyms = {}
    for group in table["synonyms"]:
        first = _joined(group[0])
        for phrase in group:
            synonyms[tuple(_pieces(phrase))] = first
    stop = frozenset(word for line in table["stop"] for word in line.split())
    return Language(synonyms, stop)


def words_of(text: str) -> list[str]:
    """Single words, for counting and for spelling."""
    return _pieces(text)


def indexed(text: str) -> str:
    """A text for the index: its words, joined compounds, and what stands for its synonyms."""
    found: list[str] = []
    lowered = text.lower().replace("’", "'")
    for match in _WORD.finditer(lowered):
        word = match.group()
        parts = _JOINTS.split(word)
        found += parts
        if len(parts) > 1:
            found.append("".join(parts))
    known = language().synonyms
    pieces = _pieces(text)
    for i in range(len(pieces)):
        for n in range(1, _LONGEST + 1):
            if stands := _stands(tuple(pieces[i : i + n]), known) if i + n <= len(pieces) else None:
                found.append(stands)
    return " ".join(found)


def asked(text: str) -> list[str]:
    """The words of a question, in order: phrases and words with synonyms as what stands for them; none twice."""
    pieces, known = _pieces(text), language().synonyms
    found: list[str] = []
    i = 0
    while i < len(pieces):
        for n in range(min(_LONGEST, len(pieces) - i), 0, -1):
            if stands := _stands(tuple(pieces[i : i + n]), known):
                found.append(stands)
                i += n
                break
        else:
            found.append(pieces[i])
            i += 1
    return list(dict.fromkeys(found))


def _stands(phrase: tuple[str, ...], known: dict[tuple[str, ...], str]) -> str | None:
    """What stands for a phrase, whose last word may have an ending."""
    if phrase in known:
        return known[phrase]
    *start, last = phrase
    for ending in _ENDINGS:
        if last.endswith(ending) and (*start, last.removesuffix(ending)) in known:
            return known[(*start, last.removesuffix(ending))]
    return None


def _pieces(text: str) -> list[str]:
    return [
        part for match in _WORD.finditer(text.lower().replace("’", "'")) for part in _JOINTS.split(match.group()) if part
    ]


def _joined(phrase: str) -> str:
    return "".join(_pieces(phrase))
