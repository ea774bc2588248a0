"""The entries of the handbook, read from the Markdown files in `entries/`.

A file is a section. In it each entry is a heading, lines of `key: value`, an empty line, and one paragraph whose first
sentence is the deciding one:

    ## Title
    id: a-name
    kind: command | option | error | idea | how-to
    words: what people call it; symptoms; goals
    says: pieces of the error messages that it explains | another
    see: other-entry, another
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["command", "option", "error", "idea", "how-to"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FOLDER = Path(__file__).parent / "entries"
_ENTRY = re.compile(r"^## ", re.M)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"`/])")
_LISTS = {"words": ";", "says": "|", "see": ","}


@dataclass(frozen=True)
class Entry:
    """One thing that a person may ask about."""

    id: str
    kind: Kind
    title: str
    body: str
    """One paragraph; names of commands, options and files stand in backticks."""
    section: str = ""
    """The heading of the file that it is in."""
    words: tuple[str, ...] = ()
    """What people call it: symptoms, goals, synonyms, misspellings."""
    says: tuple[str, ...] = ()
    """Pieces of the messages that an error entry explains, as the program prints them."""
    see: tuple[str, ...] = ()
    """Ids of entries that go on from here."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """Of the body; the first is the deciding one."""
        return tuple(_SENTENCE.split(self.body))

    @property
    def readable(self) -> tuple[str, ...]:
        """The sentences without backticks, as a model reads and says them."""
        return tuple(sentence.replace("`", "") for sentence in self.sentences)

    @property
    def plain(self) -> str:
        """The body without backticks."""
        return self.body.replace("`", "")


@cache
def entries() -> tuple[Entry, ...]:
    """All of them, in the order of the files and in them. Raises ValueError for a malformed one."""
    files = sorted(FOLDER.glob("*.md"), key=lambda path: int(path.name.partition("-")[0]))
    return tuple(entry for path in files for entry in parse(path.read_text("utf-8")))


@cache
def by_id() -> dict[str, Entry]:
    """Each entry by its id."""
    return {entry.id: entry for entry in entries()}


def parse(text: str) -> Iterator[Entry]:
    """The entries of one file. Raises ValueError, naming the entry, for what is missing or unknown."""
    start, *parts = _ENTRY.split(text)
    section = start.strip().removeprefix("# ")
    for part in parts:
        head, _, body = part.partition("\n\n")
        title, *lines = head.split("\n")
        facts = dict(line.split(": ", 1) for line in lines)
        kind = facts.pop("kind", "")
        if kind not in KINDS or "id" not in facts or not body.strip():
            raise ValueError(f"The entry {title!r} needs an id, a kind ({', '.join(KINDS)}) and a text.")
        if unknown := set(facts) - {"id", *_LISTS}:
            raise ValueError(f"The entry {title!r} has unknown keys: {', '.join(sorted(unknown))}.")
        lists = {
            key: tuple(item.strip() for item in facts.get(key, "").split(mark) if item.strip())
            for key, mark in _LISTS.items()
        }
        yield Entry(facts["id"], kind, title.strip(), " ".join(body.split()), section, **lists)
