"""Passages to read: runs of harvested sentences and small generated reports, varied so that only reading helps."""

from dataclasses import dataclass
from random import Random

from . import echo, words
from .corpus import Passage

MAX_WORDS = 330
"""About 600 tokens; longer passages cost training time and teach little more."""

_REPORT = [
    "{person} moved from {city} to {city2} in {year}.",
    "{company} opened a new office in {city} on {date}.",
    "The price of the {item} rose to {amount} last year.",
    "{person} works as a {job} at {company}.",
    "The meeting about the {item} was moved to {day} at {clock}.",
    "Order {code} was shipped from {city} on {date}.",
    "{company} and {company2} signed a contract worth {amount}.",
    "We now store all spare parts in room {number}.",
    "The {item} is sold in {number} shops, most of them in {city}.",
    "{person} asked {person2} to check invoice {code}.",
    "The train from {city} to {city2} was late by {number} minutes.",
    "{company} will hire {number} people before {month}.",
    "Nobody had seen the {item} since {date}.",
    "The new rule takes effect on {date}.",
    "{person} found the {item} behind the {thing}.",
    "The team of {person} measured {number}.{digit} percent, which is more than in {year}.",
    "The {word} of {city} is {number} metres high.",
    "After {year}, the {word} was rebuilt by {person}.",
    "In {city}, a {word} is called a {word2}.",
    "{person} said that the {word} would not last.",
    "The report ({code}) names {person} and {person2} as its authors.",
    "Please send the {item} back to {company} by {date}.",
    "We agreed that {person} will call {company} before {day}.",
    "The budget for the {word} project is {amount}.",
    "The {word} needs {number} litres of water per day, i.e. more than the {word2}.",
    "{person} bought a {item} for {amount} in {city}.",
]
_ASIDES = [
    " (e.g. {word})",
    " (i.e. the {word})",
    " (see Fig. {digit})",
    " ({person_last} et al., {year})",
    " [{digit}]",
    ", e.g. {word} and {word2},",
    " (about {number}%)",
    " ({code})",
    " (cf. {person_last}, {year})",
    ", i.e. {number}.{digit} on average,",
    " vs. {word}",
    " ({upper})",
    " (approx. {number}.{digit} units)",
    " $\\{word}_{digit} = {number}$",
    " {upper}",
    " (~{number}.{digit}%)",
    " https://{word}.org/{word2}",
    " – the {word} –",
    " à la {person_last}",
    ", {person_last} et al. ({year}),",
    " “{word}”",
    ' "{word} {word2}"',
    " {word}-{word2}",
    " {upper}-{number}",
    " Dr. {person_last}",
    " U.S. {word}",
    " O(n^{digit})",
    " {word}/{word2}",
    " {number}x",
    " ({upper}s)",
    " (e.g., a {word} {word2})",
    " \\textit{{{word} {word2}}}",
    " \\citep{{{person_last}{year}}}",
    " $(x,{digit})$",
    " $x_{digit} \\in {upper}$",
    " ({person_last}{digit}{upper})",
    " ({word} with {word2})",
    "'s {word}",
    ": {word}, {word2} and {word},",
]


@dataclass(frozen=True)
class Source:
    """Harvested passages, split once into those for training and those kept for measuring."""

    passages: list[Passage]
    pieces: tuple[str, ...] = ()
    """Pieces of words that the tokenizer has, so that each of them is copied now and then; none before it is learned.

    What is never copied in training is hardly ever said afterwards, wherever it stands.
    """

    def sentences(self, rng: Random, count: int) -> list[str]:
        """`count` sentences from runs that belong together, topped up from elsewhere."""
        found: list[str] = []
        while len(found) < count:
            found += rng.choice(self.passages)[: count - len(found)]
        return found


def fill(rng: Random, template: str) -> str:
    """A template with its slots filled; every slot is drawn afresh."""
    slots = {
        "person": words.person(rng), "person2": words.person(rng), "person_last": words.last_name(rng),
        "city": words.city(rng),
        "city2": words.city(rng), "company": words.company(rng), "company2": words.company(rng),
        "item": words.item(rng),
        "thing": rng.choice(words.ITEMS), "amount": words.amount(rng), "job": rng.choice(words.JOBS),
        "date": words.date(rng),
        "day": rng.choice(words.DAYS), "month": rng.choice(words.MONTHS), "clock": words.clock(rng),
        "code": words.code(rng),
        "number": str(rng.randint(2, 400)), "digit": str(rng.randint(0, 9)), "year": str(rng.randint(1900, 2029)),
        "word": words.invent(rng), "word2": words.invent(rng), "upper": words.letters(rng, rng.randint(2, 5)),
    }  # fmt: skip
    text = template.format(**slots)
    return text[0].upper() + text[1:]


def report(rng: Random, count: int) -> list[str]:
    """Generated sentences about people, firms and things."""
    return [fill(rng, rng.choice(_REPORT)) for _ in range(count)]


def with_aside(rng: Random, sentence: str) -> str:
    """A sentence with a bracket, a citation or an abbreviation inside: marks that look like its end and are not."""
    parts = sentence.split(" ")
    if len(parts) < 5:
        return sentence
    aside = fill(rng, "x" + rng.choice(_ASIDES))[1:]
    if rng.random() < 0.3 and aside[-1] != ",":
        return sentence[:-1] + aside + sentence[-1]
    at = rng.randint(2, len(parts) - 2)
    if not parts[at - 1].isalpha():
        return sentence
    return " ".join(parts[:at]) + aside + " " + " ".join(parts[at:])


def joined(rng: Random, first: str, second: str) -> str:
    """Two sentences made one, long as in scientific prose."""
    if first[-1] != "." or not second.split()[0].isalpha():
        return first
    link = rng.choice(("; ", ", and ", ", while ", ", but ", ": ", " -- ", ", which means that "))
    return first[:-1] + link + second[0].lower() + second[1:]


def sentences(rng: Random, source: Source, count: int) -> list[str]:
    """The sentences of one passage, at most MAX_WORDS words."""
    kind = rng.random()
    if kind < 0.25:
        found = report(rng, count)
    elif kind < 0.35:
        found = [s for pair in zip(source.sentences(rng, count), report(rng, count), strict=True) for s in pair][:count]
    else:
        found = source.sentences(rng, count)
    if rng.random() < 0.3:
        found = [joined(rng, s, source.sentences(rng, 1)[0]) if rng.random() < 0.4 else s for s in found]
    if len(found) > 1 and rng.random() < 0.5:
        found = echo.repeat(rng, found)
    if rng.random() < 0.35:
        found = [with_aside(rng, s) if rng.random() < 0.4 else s for s in found]
    kind = rng.random()
    if kind < 0.3:
        found = words.with_invented(rng, found, rng.choice((0.2, 0.5, 0.5, 0.9)))
    elif kind < 0.6:
        found = words.with_invented(rng, found, rng.choice((0.2, 0.5, 0.9)), source.pieces)
    total = 0
    kept: list[str] = []
    for sentence in found:
        total += len(sentence.split())
        if kept and total > MAX_WORDS:
            break
        kept.append(sentence)
    return kept


def count(rng: Random, low: int = 1) -> int:
    """How many sentences: mostly few, up to twelve."""
    return max(low, rng.choices(range(1, 13), (3, 6, 9, 9, 8, 7, 6, 4, 3, 2, 2, 2))[0])


def layout(rng: Random, found: list[str]) -> str:
    """Sentences as running text, sometimes in paragraphs or with a title."""
    kind = rng.random()
    if kind < 0.08 and len(found) > 3:
        half = rng.randint(1, len(found) - 1)
        text = " ".join(found[:half]) + "\n\n" + " ".join(found[half:])
    elif kind < 0.12:
        text = "\n".join(found)
    else:
        text = " ".join(found)
    if rng.random() < 0.06:
        title = " ".join(rng.choice(found).rstrip(".").split()[:3]).title()
        text = rng.choice(("# ", "", "")) + title + rng.choice(("\n\n", "\n")) + text
    return text


def notes(rng: Random, found: list[str]) -> str:
    """Sentences as a list, one in a line."""
    mark = rng.choice(("- ", "* ", "", "- ", "1"))
    return "\n".join((f"{i}. " if mark == "1" else mark) + s for i, s in enumerate(found, 1))
