"""What becomes of an answer from the handbook: held to what was read, and said where it is from.

The built-in model reads and does nothing else, so an answer of its that is no sentence of the entries is a mistake. Its
words are let through a whole sentence at a time, as they come. It mostly says an entry's first sentence, which tells
what the entry is about; the sentences that the search takes to answer are said after it. Where nothing that it says is
left, because it says that the text does not say or wanders off, they are said alone if the search was sure of the
entry; else that there is nothing. Answers of other models pass as they are.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from localllm.engine.base import Event, Finished, Prefilled, TextDelta
from localllm.tasks.looking_up import LookedUp, nothing_found
from localllm.types import Message, Usage

SURE = 0.7
"""The certainty from which on an entry speaks for itself. Of the questions in tests/handbook that are not blind, 687
of the 704 that find their entry have it, and 1 of 240 about other things."""
DECLINED = "nothing in the handbook; the model was not asked"
CHOSEN = "chosen by the search, since the model found no answer"
NOTHING = "the model found no answer"
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Sourced:
    """Where the answer is from, for the line under it. It comes before the answer's Finished."""

    text: str


def turns_for(found: LookedUp, turns: list[Message]) -> list[Message]:
    """The turns to send, of which the last is the question. A model that only reads gets nothing else to read."""
    question = Message("user", found.prompt)
    return [question] if found.held else [*turns[:-1], question]


def answer(
    found: LookedUp, ask: Callable[[threading.Event], Iterator[Event]], cancel: threading.Event, said: str = ""
) -> Iterator[Event | Sourced]:
    """The events of an answer from the handbook.

    `ask` gives those of the model, which is asked `found.prompt` and stops once its event is set; `said` is the
    beginning of the answer that is there already. Setting `cancel` stops it.
    """
    if found.instead:
        yield TextDelta(0, found.instead, ())
        yield Sourced(DECLINED)
        yield Finished(0, "stop", Usage(0, 0, 0))
    elif found.held:
        yield from _held(found, ask, cancel, said)
    else:
        yield from _sourced(found.source, ask(cancel))


def _sourced(source: str, events: Iterator[Event]) -> Iterator[Event | Sourced]:
    for event in events:
        if isinstance(event, Finished):
            yield Sourced(source)
        yield event


def _held(
    found: LookedUp, ask: Callable[[threading.Event], Iterator[Event]], cancel: threading.Event, said: str
) -> Iterator[Event | Sourced]:
    enough = threading.Event()
    gate = _Gate([sentence for entry in found.entries for sentence in entry.readable], said)
    for event in ask(_Either(cancel, enough)):
        if isinstance(event, Prefilled):
            yield event
        elif isinstance(event, TextDelta):
            yield replace(event, text=gate.feed(event.text))
            if gate.left:
                enough.set()
        else:
            broken = not gate.left and event.reason != "stop"
            last, source = _ending(found, gate, broken=broken)
            yield TextDelta(event.request_id, last, ())
            yield Sourced(source)
            yield event if broken else replace(event, reason="stop")


def _ending(found: LookedUp, gate: _Gate, *, broken: bool) -> tuple[str, str]:
    """What is still to be said, and the source. What is `broken` off in the middle of a sentence is left as it is."""
    last = gate.flush(broken=broken)
    if broken:
        return last, found.source
    if gate.said:
        return last + "".join(map(gate.add, found.deciding)), found.source
    best = replace(found, entries=found.entries[:1])
    if found.certainty >= SURE:
        chosen = found.deciding or best.entries[0].readable[:1]
        return "".join(map(gate.add, chosen)), f"{best.source} · {CHOSEN}"
    return nothing_found(), f"looked up {best.source.removeprefix('from ')} · {NOTHING}"


class _Gate:
    """Lets whole sentences of a passage through, each once; `left` when something else came."""

    def __init__(self, passage: list[str], said: str) -> None:
        """`said` went through already; its last sentence may be a beginning."""
        self._sentences = list(map(_one_line, passage))
        self._waiting, self._begun = "", 0
        self.said = False
        """Whether anything went through."""
        self.left = False
        self.feed(said)
        self._begun = len(self._waiting.strip())
        self.said = bool(said)

    def feed(self, text: str) -> str:
        """The sentences that are certain by now."""
        self._waiting = _SPACE.sub(" ", self._waiting + text)
        through = ""
        while not self.left:
            start = self._waiting.lstrip()
            longer = [s for s in self._sentences if s.startswith(start)]
            whole = max((s for s in self._sentences if _begins(start, s)), key=len, default=None)
            if whole is None:
                self.left = not longer
                break
            if any(len(s) > len(whole) for s in longer):
                break  # it may still become the longer one
            through += self._let(whole, start)
        return through

    def add(self, sentence: str) -> str:
        """A sentence of the passage, unless it went through before."""
        sentence = _one_line(sentence)
        if sentence not in self._sentences:
            return ""
        self._sentences.remove(sentence)
        self._begun = 0
        return self._out(sentence)

    def flush(self, *, broken: bool) -> str:
        """A last sentence that might have become a longer one, or the beginning of one that was broken off."""
        start = self._waiting.strip()
        if self.left or not (broken or start in self._sentences):
            return ""
        return self._let(start, start) if start in self._sentences else self._out(start)

    def _let(self, sentence: str, start: str) -> str:
        self._sentences.remove(sentence)
        self._waiting = start[len(sentence) :]
        return self._out(sentence)

    def _out(self, text: str) -> str:
        space = " " if self.said and not self._begun else ""
        text, self._begun = text[self._begun :], 0
        self.said = self.said or bool(text)
        return space + text if text else ""


class _Either(threading.Event):
    """Set when one of two is."""

    def __init__(self, first: threading.Event, second: threading.Event) -> None:
        super().__init__()
        self._both = first, second

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._both)


def _begins(text: str, sentence: str) -> bool:
    return text.startswith(sentence) and text[len(sentence) :][:1] in ("", " ")


def _one_line(text: str) -> str:
    return _SPACE.sub(" ", text).strip()
