"""Conversations over generated instructions: the question says the same as its sentence, mostly in other words.

One passage is about one thing or one action, so that its sentences differ in little; the answer stands anywhere in
it. A question that only names the thing is answered by the first sentence, as an entry of the handbook would be.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from random import Random

from . import facts, passages, questions, talk, voices, words
from .passages import Source
from .summarize import Messages, message, system
from .words import pick

_TABLES = tomllib.loads((Path(__file__).parent / "manual.toml").read_text(encoding="utf-8"))
VERBS, NOUNS, ADJECTIVES = (
    [line.split("|") for line in _TABLES[name].strip().split("\n")] for name in ("verbs", "nouns", "adjectives")
)
_VAGUE = (
    "{c}|{c}?|what about the {c}?|help with the {c}|I have a question about my {c}|tell me about the {c}|what do I "
    "need to know about a {c}?|my {c}, what now?|I don't understand the {c}|something with my {c}|"
    "how does the {c} work?|explain the {c} to me|is there anything on the {c}?|what can I do with a {c}?|"
    "{c} help|the thing with the {c}|where do I start with my {c}?|I am stuck with a {c}|how does that go with the {c}?"
)


@dataclass(frozen=True)
class Stated:
    """A sentence, a question that it answers, and the groups of words that both are about."""

    sentence: str
    question: str
    about: frozenset[str]


@dataclass
class _Words:
    """A word for every slot: those of a group in the sentence, mostly others of it in the question."""

    verb: list[str]
    noun: list[str]
    other: list[str]
    adjective: list[str]
    term: str
    article: str

    def fill(self, rng: Random, template: str, slots: dict[str, str], same: float) -> str:
        """A template; each word is the group's first with the chance `same`."""

        def of(group: list[str]) -> str:
            return group[0] if len(group) == 1 or rng.random() < same else rng.choice(group[1:])

        noun = of(self.noun)
        text = template.format(
            v=of(self.verb), n=f"{self.article} {noun}", c=noun, c2=of(self.other), adj=of(self.adjective),
            term=self.term, Term=self.term.capitalize(), **slots,
        )  # fmt: skip
        return text[0].upper() + text[1:] if template[0].isupper() or (template[0] == "{" and same == 1) else text


def _group(rng: Random, groups: list[list[str]], invented: float = 0.12) -> list[str]:
    if rng.random() < invented:
        return [words.invent(rng)]
    found = list(rng.choice(groups))
    rng.shuffle(found)
    return found


def _slots(rng: Random) -> dict[str, str]:
    folder = rng.choice((words.invent(rng, 2), rng.choice(words.ITEMS)))
    file = f"{words.invent(rng, 2)}.{pick(rng, 'txt|toml|jsonl|md|json|py|log')}"
    title = rng.choice((f'"{words.invent(rng).capitalize()}"', words.invent(rng).capitalize(), words.code(rng)))
    slots = {
        "command": facts.VALUES["command"](rng), "option": facts.VALUES["option"](rng), "key": facts.VALUES["key"](rng),
        "person": words.person(rng), "person2": words.first_name(rng), "email": words.email(rng), "file": file,
        "place": rng.choice((f"~/{folder}/{file}", f"the {folder}", facts.VALUES["room"](rng), words.city(rng))),
        "number": str(rng.randint(2, 900)), "amount": words.amount(rng), "day": rng.choice(words.DAYS),
        "clock": words.clock(rng), "date": words.date(rng), "title": title, "word": words.invent(rng),
        "menu": words.invent(rng, 2), "upper": words.letters(rng, rng.randint(1, 4)),
    }  # fmt: skip
    action = pick(rng, _TABLES["fronts"]).format(**slots)
    return slots | {"do": action, "Do": action[0].upper() + action[1:]}


def state(rng: Random, verb: list[str] | None = None, noun: list[str] | None = None) -> Stated:
    """A sentence about an action, a thing, or both."""
    kind = rng.choice(_TABLES["sentences"])
    chosen = _Words(
        verb or _group(rng, VERBS), noun or _group(rng, NOUNS), _group(rng, NOUNS), _group(rng, ADJECTIVES, 0),
        words.invent(rng) if rng.random() < 0.6 else f"{words.invent(rng, 2)} {rng.choice(NOUNS)[0]}",
        pick(rng, "a|the|your|an old|a whole|one"),
    )  # fmt: skip
    if chosen.article == "a" and chosen.noun[0][0] in "aeiou":
        chosen.article = "an"
    slots = _slots(rng)
    sentence = chosen.fill(rng, pick(rng, kind["say"]).replace("`", ""), slots, 1.0)
    template = pick(rng, kind["ask"])
    chosen.article = pick(rng, "a|the|my|my|this|some")
    question = chosen.fill(rng, template, slots, 0.35)
    groups = {"{v}": chosen.verb, "{n}": chosen.noun, "{c}": chosen.noun, "{term}": [chosen.term]}
    about = frozenset(name for slot, group in groups.items() if slot in template for name in group)
    return Stated(sentence, question, about)


def _entry(rng: Random, source: Source) -> tuple[list[str], list[tuple[str, str]], list[str]]:
    """Sentences, questions with their answers, and the words of what all of it is about."""
    noun = _group(rng, NOUNS, 0.2)
    verb = _group(rng, VERBS) if rng.random() < 0.2 else None
    stated: list[Stated] = []
    for _ in range(rng.choice((2, 3, 3, 4, 4, 5, 6, 8))):
        new = state(rng, verb, noun if rng.random() < 0.55 else None)
        if all(new.about != old.about for old in stated):
            stated.append(new)
    lines = [one.sentence for one in stated]
    asked = [(one.question, one.sentence) for one in stated]
    if rng.random() < 0.25:
        for sentence in passages.sentences(rng, source, rng.randint(1, 3)):
            lines.insert(rng.randint(1, len(lines)), sentence)
    if any(name in lines[0] for name in noun):
        asked.append((pick(rng, _VAGUE).format(c=rng.choice(noun)), lines[0]))
    return lines, asked, noun


def _missing(rng: Random, text: str) -> tuple[str, str] | None:
    """A question about the world, or about an action and a thing neither of which occurs."""
    if rng.random() < 0.3:
        question = talk.world_question(rng)
        held = any(len(word) > 4 and word in text for word in re.findall(r"\w+", question))
    else:
        other = state(rng)
        question, held = other.question, any(name.split()[0] in text for name in other.about)
    return None if held else (voices.voiced(rng, question), questions.NOT_SAID)


def read(rng: Random, source: Source) -> Messages:
    """One to four questions about one entry or two beside each other."""
    drawn = [_entry(rng, source) for _ in range(1 + (rng.random() < 0.3))]
    separator = rng.choice(("\n\n", "\n\n", "\n\n", "\n", " "))
    text = separator.join(" ".join(lines) for lines, _, _ in drawn)
    asked = [pair for _, pairs, _ in drawn for pair in pairs]
    rng.shuffle(asked)
    turns = [(voices.voiced(rng, q), a) for q, a in asked[: rng.choice((1, 2, 3, 4))]]
    if rng.random() < 0.35 and (missing := _missing(rng, text)):
        turns.insert(rng.randint(0, len(turns)), missing)
    (first, answer), rest = turns[0], turns[1:]
    opening = f"{text}\n\n{first}" if rng.random() < 0.7 else questions.wrap(rng, text, first)
    messages = [*system(rng, 0.08), message("user", opening), message("assistant", answer)]
    for question, reply in rest:
        messages += [message("user", question), message("assistant", reply)]
    return messages
