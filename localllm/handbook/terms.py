"""Words as the index has them: lower case, compounds both joined and apart, synonyms replaced by one of them."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

_WORD = re.compile(r"[a-z0-9]+")
_PLAIN = re.compile(r"[a-z0-9 .,;:!?()]*")
_COMPOUND = re.compile(r"[a-z0-9]+(?:[-_.+'/][a-z0-9]+)+")
_FILE = Path(__file__).with_name("synonyms.toml")
_ENDINGS = (("sses", "ss"), ("ies", "y"), ("ss", "ss"), ("us", "us"), ("is", "is"), ("s", ""), ("ing", ""), ("ed", ""),
            ("ly", ""))  # fmt: skip


@dataclass(frozen=True)
class Language:
    """What is known of words beside the entries."""

    synonyms: dict[str, list[str]]
    """The stem of a word -> the words that stand for its groups; in a question the first one counts."""
    phrases: dict[tuple[str, str], list[tuple[tuple[str, ...], str]]]
    """The first two stems of a phrase -> all its stems, and the word that stands for its group; longest first."""
    stop: frozenset[str]
    """Words without a topic of their own."""
    topic: frozenset[str]
    """Words that make it likely that a question is about this program."""
    ordinary: frozenset[str]
    """Stems of words that people use whatever they talk about."""
    elsewhere: frozenset[str]
    """Stems of words of other topics, which are not misspelt words of ours."""


@cache
def language() -> Language:
    """From `synonyms.toml`, `ordinary.txt` and `elsewhere.txt`."""
    table = tomllib.loads(_FILE.read_text("utf-8"))
    synonyms: dict[str, list[str]] = {}
    phrases: dict[tuple[str, str], list[tuple[tuple[str, ...], str]]] = {}
    for group in table["synonyms"]:
        stands = "".join(words_of(group[0]))
        for phrase in group:
            stems = tuple(map(stem, words_of(phrase)))
            if len(stems) == 1:
                synonyms.setdefault(stems[0], []).append(stands)
            else:
                phrases.setdefault((stems[0], stems[1]), []).append((stems, stands))
    for found in phrases.values():
        found.sort(key=lambda pair: -len(pair[0]))
    stop, topic = (frozenset(word for line in table[key] for word in line.split()) for key in ("stop", "topic"))
    elsewhere = _stems("elsewhere.txt") - frozenset(map(stem, topic))
    ordinary = _stems("ordinary.txt") - elsewhere - frozenset(map(stem, topic))
    return Language(synonyms, phrases, stop, topic, ordinary, elsewhere)


def _stems(name: str) -> frozenset[str]:
    """Of the words of a file; lines that begin with # say what they are."""
    lines = Path(__file__).with_name(name).read_text("utf-8").splitlines()
    return frozenset(stem(word) for line in lines if not line.startswith("#") for word in line.split())


def words_of(text: str) -> list[str]:
    """The single words of a text, in lower case; compounds are taken apart."""
    return _WORD.findall(text.lower())


def indexed(text: str) -> str:
    """A text for the index: its words, compounds joined as well, and what stands for synonyms."""
    lowered = text.lower()
    pieces, known = _WORD.findall(lowered), language()
    stems = tuple(map(stem, pieces))
    found = [*pieces, *chain.from_iterable(known.synonyms.get(word, ()) for word in stems)]
    for i, pair in enumerate(pairwise(stems)):
        if pair in known.phrases:
            found += [stands for _, stands in _phrases_at(stems, i)]
    if not _PLAIN.fullmatch(lowered):
        found += ["".join(_WORD.findall(word)) for word in _COMPOUND.findall(lowered)]
    return " ".join(found)


def asked(text: str) -> list[str]:
    """The words of a question that have a topic, in order and none twice; synonyms as what stands for them."""
    pieces = words_of(text)
    stems = tuple(map(stem, pieces))
    found: list[str] = []
    i = 0
    while i < len(pieces):
        n, stands = next(iter(_phrases_at(stems, i)), (1, language().synonyms.get(stems[i], [pieces[i]])[0]))
        if stands not in language().stop:
            found.append(stands)
        i += n
    return list(dict.fromkeys(found))


def _phrases_at(stems: tuple[str, ...], i: int) -> list[tuple[int, str]]:
    """Phrases with synonyms that begin at i: their length and what stands for them, longest first."""
    known = language().phrases.get((stems[i], stems[i + 1]), ()) if i + 1 < len(stems) else ()
    return [(len(phrase), stands) for phrase, stands in known if stems[i : i + len(phrase)] == phrase]


@cache
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
