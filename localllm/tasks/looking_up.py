"""Questions about the program: looked up in the handbook, so that a small model can read the answer.

A front end asks `consult` what the handbook has for a message of its model's, or `wanted` and `look_up` one by one, and
then says what stands in `instead`, or asks the model `prompt` and shows `source`: see reading.py. Nothing here needs a
loaded model but `fitted`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from localllm.engine.base import Engine
from localllm.errors import LocalLLMError
from localllm.handbook import context
from localllm.handbook.deciding import book
from localllm.handbook.entries import Entry
from localllm.handbook.index import Hit, answers, handbook
from localllm.store import catalog
from localllm.store.machine import available_memory
from localllm.types import Message, ModelRef

CLOSE = 0.85
"""A second entry is read too whose points are at least this part of the first one's."""
OWN_TEXT = 40
"""Words from which on a message is taken to hold a text of the person's own."""
TEXT_BEFORE, TURNS_BEFORE = 0.95, 6
"""The certainty from which on a question is about the program although the person gave a text to ask about within so
many turns before. One that says "it" is about the text."""
SHARE, BYTES, BESIDE = 0.6, 0.65, 1e9
"""A model to recommend takes at most this share of the memory: so many bytes a weight, and so many for the rest."""
ROOM = 160
"""Tokens that are kept for the answer."""
_TALK = re.compile(
    r"(hi|hello|hey|hallo|good (morning|afternoon|evening|day|night)|(many )?thanks?( you| a lot| so much)*|ty|thx|"
    r"cheers|(good)?bye|see you|(who|what) are you|what('s| is) your name|how are you( today)?|"
    r"what can you do( for me)?|nice|great|perfect|ok(ay)?|yes|no|well done|good job)"
    r"( (there|guide|please|again|then))*",
    re.I,
)
_REFERS = re.compile(
    r"\b(it|its|he|him|his|she|her|they|them|their|this|that|these|those|(the|my) (text|file))\b", re.I
)
_SENTENCES = re.compile(r"[.!?:]\s+\S")


@dataclass(frozen=True)
class LookedUp:
    """What the handbook has for a message. Either `entries` or `instead` is there."""

    question: str
    entries: tuple[Entry, ...] = ()
    """What the model is to read, the best first."""
    instead: str = ""
    """What to say where nothing fits: the model is then not asked, since it would have nothing to read."""
    certainty: float = 0.0
    """How sure it is that the first entry is about the question; see handbook/index.py."""
    deciding: tuple[str, ...] = ()
    """Sentences of the first entry that answer the question, as far as the search can tell."""
    held: bool = False
    """Whether the model only reads: what it says counts as far as it stands in the entries."""

    @property
    def prompt(self) -> str:
        """The user's turn as the model sees it: the entries, then the question."""
        return context.prompt(self.question, self.entries)

    @property
    def source(self) -> str:
        """A line that says where the answer comes from."""
        return "from the handbook: " + "; ".join(f"{entry.title} ({entry.id})" for entry in self.entries)


def wanted(asked: bool | None, model: ModelRef, *, adapter: bool = False) -> bool:
    """Whether messages are looked up: as the person says, else for the built-in model without an adapter."""
    if asked is not None:
        return asked
    return model.source == "built-in" and not adapter


def consult(
    asked: bool | None, model: ModelRef, message: str, before: Sequence[Message] = (), *, adapter: bool = False
) -> LookedUp | None:
    """What the handbook has for a message to this model; None where the model is to be asked the message as it is.

    `asked` is what the person says of the handbook, None where they say nothing; `before` are the turns so far.
    """
    if not wanted(asked, model, adapter=adapter):
        return None
    found = look_up(message, before)
    if found is None:
        return None
    reader = model.source == "built-in" and not adapter
    # Somebody else's model has read more than the handbook: where nothing fits, it is asked as it is.
    return replace(found, held=reader) if reader or not found.instead else None


def look_up(message: str, before: Sequence[Message] = ()) -> LookedUp | None:
    """What the handbook has for a message; None for one that the model should answer as it is: a greeting, a message
    that brings its own text to read, or a question about such a text among the turns before it.
    """
    text = message.strip()
    if has_text(text) or is_talk(text):
        return None
    hits = handbook().search(text)
    given = any(turn.role == "user" and has_text(turn.content) for turn in before[-TURNS_BEFORE:])
    about_text = given and bool(hits) and (hits[0].certainty < TEXT_BEFORE or _REFERS.search(text))
    if answers(hits) and not about_text:
        best = hits[0]
        numbers = book().deciding(text, best.entry)
        deciding = tuple(best.entry.readable[number] for number in numbers)
        return LookedUp(text, tuple(hit.entry for hit in _close(hits)), "", best.certainty, deciding)
    return None if given or _SENTENCES.search(text) else LookedUp(text, instead=nothing_found())


def has_text(message: str) -> bool:
    """Whether a message holds a text of the person's own, or a file."""
    return "\n" in message.strip() or len(message.split()) > OWN_TEXT


def is_talk(text: str) -> bool:
    """Whether a message is a greeting, thanks, or asks who it is talking to."""
    return _TALK.fullmatch(" ".join(re.findall(r"[\w']+", text))) is not None


def nothing_found() -> str:
    """What to say where the handbook has no answer, and which model to get instead."""
    name = larger_model()
    command = f"`localllm pull {name}`, then ask it with `--model {name}`" if name else "`localllm pull` lists some"
    return (
        "The handbook has nothing on that, and I know only what I read. Give me a text with the answer in it, "
        f"or get a larger model: {command}."
    )


def larger_model() -> str:
    """The largest model of the catalog that fits this machine well at 4 bits; nothing where none is known to."""
    try:
        most = available_memory() * SHARE
    except LocalLLMError:  # the system does not say
        return ""
    sizes = {
        name: card["parameters"] for name, card in catalog.cards().items() if "gguf" in card and "parameters" in card
    }
    fitting = {name: size for name, size in sizes.items() if size * BYTES + BESIDE <= most}
    return max(fitting, key=lambda name: (fitting[name], name), default="")


def fitted(engine: Engine, found: LookedUp, before: Sequence[Message] = ()) -> LookedUp:
    """With as many entries as the context holds beside the turns before and an answer, but at least one."""

    def tokens() -> int:
        return len(engine.encode_chat([*before, Message("user", found.prompt)]))

    while len(found.entries) > 1 and tokens() + ROOM > engine.info.n_ctx:
        found = replace(found, entries=found.entries[:-1])
    return found


def _close(hits: list[Hit]) -> list[Hit]:
    """The best, and the second where it is nearly as good."""
    return [hits[0], *(hit for hit in hits[1:2] if hit.points >= CLOSE * hits[0].points)]
