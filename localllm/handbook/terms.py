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
_ENDINGS = (("sses", "ss"), ("ies", "y"), ("ss", "ss"), ("us", "us"), ("is", "is"), ("s", ""), ("ing", ""), ("ed", ""),
            ("ly", ""))  # fmt: skip


@dataclass(frozen=True)
class Language:
    """What is known of words beside the entries."""

    synonyms: dict[tuple[str, ...], str]
    """The stems of a word or phrase -> the word that stands for its group."""
    stop: frozenset[str]
    """Words without a topic of their own."""
    topic: frozenset[str]
    """Words that make it likely that a question is about this program."""


@cache
def language() -> Language:
    """From `synonyms.toml`."""
    table = tomllib.loads(_FILE.read_text("utf-8"))
    synonyms = {}
    for group in table["synonyms"]:
        for phrase in group:
            synonyms[tuple(map(stem, words_of(phrase)))] = "".join(words_of(group[0]))
    stop, topic = (frozenset(word for line in table[key] for word in line.split()) for key in ("stop", "topic"))
    return Language(synonyms, stop, topic)


def words_of(text: str) -> list[str]:
    """The single words of a text, in lower case; compounds are taken apart."""
    return [part for match in _WORD.findall(text.lower().replace("’", "'")) for part in _JOINTS.split(match) if part]


def indexed(text: str) -> str:
    """A text for the index: its words, compounds joined as well, and what stands for synonyms."""
    compounds = ["".join(_JOINTS.split(word)) for word in _WORD.findall(text.lower()) if _JOINTS.search(word)]
    pieces = words_of(text)
    stems = [stem(word) for word in pieces]
    known = language().synonyms
    spans = (tuple(stems[i : i + n]) for i in range(len(stems)) for n in range(1, _LONGEST + 1))
    return " ".join([*pieces, *compounds, *(known[span] for span in spans if span in known)])


def asked(text: str) -> list[str]:
    """The words of a question that have a topic, in order and none twice; synonyms as what stands for them."""
    pieces, known = words_of(text), language().synonyms
    stems = [stem(word) for word in pieces]
    found: list[str] = []
    i = 0
    while i < len(pieces):
        spans = (n for n in range(min(_LONGEST, len(pieces) - i), 0, -1) if tuple(stems[i : i + n]) in known)
        n = next(spans, 0)
        if n:
            found.append(known[tuple(stems[i : i + n])])
        elif pieces[i] not in language().stop:
            found.append(pieces[i])
        i += n or 1
    return list(dict.fromkeys(found))


def stem(word: str) -> str:
    """A word without its ending, roughly: for comparing words that the index does not compare."""
    if len(word) < 4:
        return word
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending) + instead
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 4 else word
