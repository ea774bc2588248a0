"""Conversations over entries of the handbook, in the very layout in which the program asks the model to read them.

An entry's first sentence is by convention the one that answers, and for itself where a question names the entry. Where
it takes up words that stand in another sentence only, that one is said after the first; where it names an option, the
sentence with the option is said alone. Questions are those written for each sentence (localllm/handbook/asked), and are
made from the entry's title and its list of what people call it; none is taken from the questions that the search and
the reader are measured with, and every eighth of the written ones is left out, to measure with while training.
"""

import math
import re
import tomllib
import zlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

from localllm.handbook import context, terms
from localllm.handbook.asked import asked
from localllm.handbook.entries import Entry, by_id, entries

from . import questions, talk, voices, words
from .passages import Source
from .summarize import Messages, message
from .words import pick

_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+|/[a-z]+\b|\b(?:Ctrl\+\w|F\d)\b")
_OPTION_QUESTIONS = (
    "what does {o} do?|what is {o}?|what is {o} for?|{o}|{o}?|when do I use {o}?|explain {o}|{o} option|"
    "how do I use {o}?|is there {o}?|what happens with {o}?|why {o}?|do I need {o}?|what about {o}?"
)


def stems(text: str) -> set[str]:
    """The words of a text that carry meaning, cut to five letters."""
    return {w[:5] for w in re.findall(r"[a-z0-9][a-z0-9-]+", text.lower()) if w not in words.COMMON}


def _plain(entry: Entry) -> list[str]:
    return [sentence.replace("`", "") for sentence in entry.sentences]


@cache
def rarity() -> dict[str, float]:
    """Of each stem, by the entries that hold it."""
    held = Counter(stem for entry in entries() for stem in stems(entry.plain))
    return {stem: math.log(len(entries()) / count) for stem, count in held.items()}


def deciding(phrase: str, entry: Entry) -> str:
    """What answers a phrase: the first sentence, with another one or alone that one where the phrase points there."""
    sentences = _plain(entry)
    options = [o for o in _OPTION.findall(phrase) if o not in sentences[0]]
    for sentence in sentences[1:]:
        if any(o in sentence for o in options):
            return sentence
    wanted = {stem: rarity().get(stem, 0.0) for stem in stems(phrase) - stems(entry.title)}
    points = [sum(wanted[stem] for stem in wanted.keys() & stems(sentence)) for sentence in sentences]
    most = max(points)
    if most > 2.5 and points.count(most) == 1 and points[0] < 0.4 * most and most > 0.6 * sum(wanted.values()):
        return f"{sentences[0]} {sentences[points.index(most)]}"
    return sentences[0]


@cache
def synonyms() -> dict[str, tuple[str, ...]]:
    """For each word of the search's lists, the words and phrases that mean the same."""
    groups = tomllib.loads((Path(terms.__file__).with_name("synonyms.toml")).read_text(encoding="utf-8"))["synonyms"]
    return {word: tuple(group) for group in groups for word in group}


def reworded(rng: Random, question: str) -> str:
    """A question with some of its words put in another way."""

    def other(match: re.Match[str]) -> str:
        same = synonyms().get(match[0].lower())
        return rng.choice(same) if same and rng.random() < 0.5 else match[0]

    return re.sub(r"(?<![-\w./])[A-Za-z]+(?![-\w./])", other, question)


def _called(rng: Random, entry: Entry) -> tuple[str, str]:
    """A question by what the entry is called, and its answer."""
    names = [entry.title, *entry.words]
    about, beside = rng.choice(names), rng.choice(names)
    title = about == entry.title
    if title and not about.isupper() and about[1:2].islower():
        about = about[0].lower() + about[1:]
    if rng.random() < 0.06 and entry.says:
        about = rng.choice(entry.says)
        return pick(rng, "{a}|it says: {a}|error: {a}|what does {a} mean?|{a} what now?").format(a=about), _plain(
            entry
        )[0]
    question = voices.ask(rng, reworded(rng, about) if rng.random() < 0.35 else about, beside)
    return question, _plain(entry)[0] if title else deciding(about, entry)


def _pointed(rng: Random, entry: Entry) -> tuple[str, str] | None:
    """A question by words or an option of one sentence only."""
    sentences = _plain(entry)
    at = rng.randrange(len(sentences))
    others = " ".join(sentences[:at] + sentences[at + 1 :])
    options = [o for o in _OPTION.findall(sentences[at]) if o not in others]
    if options and rng.random() < 0.6:
        return voices.voiced(rng, pick(rng, _OPTION_QUESTIONS).format(o=rng.choice(options))), sentences[at]
    question = questions.prose_question(rng, sentences[at], others)
    if not question:
        return None
    question = reworded(rng, question) if rng.random() < 0.35 else question
    return voices.voiced(rng, question), sentences[0] if at == 0 else f"{sentences[0]} {sentences[at]}"


def left_out(question: str) -> bool:
    """Whether a written question is kept for measuring."""
    return zlib.crc32(question.encode()) % 8 == 0


@cache
def written(name: str) -> tuple[tuple[int, str], ...]:
    """The questions written for an entry, with the sentence that answers each: those to train with."""
    return tuple(pair for pair in asked()[name] if not left_out(pair[1]))


def said(entry: Entry, at: int) -> str:
    """The answer to a question that the sentence at this index answers: it stands after the deciding one."""
    sentences = _plain(entry)
    return sentences[0] if at == 0 else f"{sentences[0]} {sentences[at]}"


def _written(rng: Random, entry: Entry) -> tuple[str, str]:
    """A question in somebody's own words, as it is or with other words and mistakes."""
    at, question = rng.choice(written(entry.id))
    if rng.random() < 0.3:
        question = reworded(rng, question)
    return voices.voiced(rng, question) if rng.random() < 0.5 else question, said(entry, at)


def _foreign(rng: Random, found: Sequence[Entry]) -> tuple[str, str] | None:
    """A question that another entry of the handbook answers, and none of these."""
    other = rng.choice(entries())
    near = {name for entry in found for name in (entry.id, *entry.see)}
    if other.id in near or near & set(other.see) or other.section in {entry.section for entry in found}:
        return None
    _, question = rng.choice(written(other.id))
    if stems(question) & stems(" ".join(entry.plain for entry in found)):
        return None
    return question, questions.NOT_SAID


def _elsewhere(rng: Random, text: str) -> tuple[str, str] | None:
    """A question about the world that the entries do not answer."""
    question = talk.world_question(rng)
    return None if stems(question) & stems(text) else (voices.voiced(rng, question), questions.NOT_SAID)


def _turn(rng: Random, entry: Entry, beside: Sequence[Entry]) -> tuple[str, str]:
    """A question about an entry that stands with others, itself among them, and its answer."""
    kind = rng.random()
    if kind < 0.05 and (pair := _elsewhere(rng, context.passage(beside))):
        return pair
    if kind < 0.10 and (pair := _foreign(rng, beside)):
        return pair
    if kind < 0.22 and (pair := _pointed(rng, entry)):
        return pair
    return _called(rng, entry) if kind < 0.38 else _written(rng, entry)


def read(rng: Random, source: Source) -> Messages:
    """One to three questions about an entry that stands alone or beside others; sometimes each with its own."""
    del source
    book = entries()
    entry = rng.choice(book)
    beside = [by_id()[name] for name in entry.see if name in by_id()] or list(book)
    found = [entry]
    for _ in range(rng.choices((0, 1, 2), (5, 4, 1))[0]):
        other = rng.choice(beside if rng.random() < 0.6 else book)
        if other not in found:
            found.insert(rng.choice((len(found), len(found), 0)), other)
    question, answer = _turn(rng, entry, found)
    turns = [message("user", context.prompt(question, found)), message("assistant", answer)]
    for _ in range(rng.choices((0, 1, 2, 3), (5, 2, 2, 1))[0]):
        question, answer = _turn(rng, rng.choice(found), found)
        turns += [message("user", question), message("assistant", answer)]
    return turns
