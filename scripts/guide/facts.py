"""Generated facts with questions about them: each relation has statements, questions and the span that answers."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from . import words
from .words import pick

_TABLES: dict[str, Any] = tomllib.loads((Path(__file__).parent / "facts.toml").read_text(encoding="utf-8"))
_RELATIONS: list[dict[str, Any]] = _TABLES["relations"]


@dataclass(frozen=True)
class Fact:
    """One drawn fact."""

    statement: str
    question: str
    span: str


def _key(rng: Random) -> str:
    head = pick(rng, "Ctrl+|Ctrl+|Alt+|Shift+|")
    return head + (rng.choice("ABCDEFGHJKLNPQRSTUVW") if rng.random() < 0.8 else f"F{rng.randint(1, 12)}")


def _task(rng: Random) -> str:
    verb, noun = rng.choice(_TABLES["verbs"]), rng.choice(_TABLES["nouns"])
    article = pick(rng, "a|the|your|an old|the current|a new")
    return f"{verb} {article} {words.invent(rng) if rng.random() < 0.25 else noun}"


def _option(rng: Random) -> str:
    word = rng.choice(_TABLES["options"])
    return "--" + (word if rng.random() < 0.6 else words.invent(rng, 2))


def _command(rng: Random) -> str:
    name = pick(rng, "localllm|localllm|tool|app") if rng.random() < 0.6 else words.invent(rng, 1)
    verb = rng.choice(_TABLES["commands"]) if rng.random() < 0.6 else words.invent(rng, 2)
    return f"{name} {verb}" + rng.choice(("", "", f" {words.invent(rng, 2)}.txt", f" {_option(rng)}"))


def _room(rng: Random) -> str:
    numbered, lettered = f"room {rng.randint(1, 400)}", f"hall {words.letters(rng, 1)}"
    return rng.choice((numbered, lettered, f"the {words.invent(rng)} room", "the cellar", "the garden"))


def _event(rng: Random) -> str:
    kind = rng.choice((words.invent(rng), words.city(rng), "annual", "summer"))
    return f"the {kind} {rng.choice(_TABLES['events'])}"


def _reason(rng: Random) -> str:
    article = pick(rng, "the|a broken|an old|a missing")
    return f"{article} {words.invent(rng)} {rng.choice(_TABLES['failures'])}"


def _purpose(rng: Random) -> str:
    return f"{rng.choice(_TABLES['uses'])} {pick(rng, 'small|old|dry|heavy|wet')} {words.invent(rng)}s"


def _thing(rng: Random) -> str:
    return rng.choice(words.ITEMS) if rng.random() < 0.6 else words.invent(rng)


VALUES: dict[str, Callable[[Random], str]] = {
    "person": words.person,
    "city": words.city,
    "company": words.company,
    "date": words.date,
    "amount": words.amount,
    "code": words.code,
    "item": words.item,
    "clock": words.clock,
    "email": words.email,
    "word": words.invent,
    "key": _key,
    "task": _task,
    "option": _option,
    "command": _command,
    "room": _room,
    "event": _event,
    "reason": _reason,
    "purpose": _purpose,
    "thing": _thing,
    "job": lambda rng: rng.choice(words.JOBS),
    "year": lambda rng: str(rng.randint(1850, 2029)),
    "number": lambda rng: str(rng.randint(2, 9000)),
    "colour": lambda rng: rng.choice(words.COLOURS),
}
"""Kinds of values that a relation may name."""


def draw(rng: Random) -> Fact:
    """One fact of a random relation."""
    relation = rng.choice(_RELATIONS)
    subject, answer = VALUES[relation["subject"]](rng), VALUES[relation["answer"]](rng)
    statements, questions = relation["statements"], relation["questions"]
    at = rng.randrange(min(len(statements), len(questions)))
    paired = relation.get("paired", False)
    statement = statements[at] if paired else rng.choice(statements)
    question = questions[at] if paired else rng.choice(questions)
    slots = {kind: VALUES[kind](rng) for kind in ("year", "person", "city", "company", "date", "job", "thing")}
    text = statement.format(s=subject, a=answer, **slots)
    return Fact(text[0].upper() + text[1:], question.format(s=subject), answer)
