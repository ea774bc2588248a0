"""Phrases that occur several times in one passage, as the terms of a paper do.

A reader that copies by what came just before is led astray where the same words stand in two places: only the place
that it has come from tells how they go on. Sentences drawn from everywhere share few phrases, so they are put in.
"""

import re
from random import Random

from . import words
from .words import pick

_OPENINGS = (
    "In this paper, we |We show that |In this work, we propose |We also |In particular, |This paper presents |"
    "We demonstrate that |Recently, |For example, |However, |We find that |Our experiments show that |We propose |"
    "We study |Experimental results on |To this end, we |In addition, "
)


def term(rng: Random) -> str:
    """Two to four words or an abbreviation, some of them invented."""
    kind = rng.random()
    if kind < 0.15:
        return words.letters(rng, rng.randint(2, 5)) + rng.choice(("", "s", "-" + words.digits(rng, 1, 2)))
    modifiers = [
        words.invent(rng) if rng.random() < 0.3 else rng.choice(words.MODIFIERS)
        for _ in range(rng.choice((1, 1, 2, 2, 3)))
    ]
    head = words.invent(rng) if rng.random() < 0.2 else rng.choice(words.HEADS)
    if kind < 0.3:
        head += f" ({''.join(m[0] for m in (*modifiers, head)).upper()})"
    return " ".join([*modifiers, head + rng.choice(("", "s"))])


def _put(rng: Random, sentence: str, phrase: str) -> str:
    """The phrase instead of a word inside, or at the front."""
    parts = sentence.split(" ")
    inside = [i for i in range(1, len(parts) - 1) if parts[i].isalpha() and len(parts[i]) > 3]
    if not inside or rng.random() < 0.12:
        rest = sentence[0].lower() + sentence[1:] if sentence[1:2].islower() else sentence
        text = f"{rng.choice(('the ', 'a ', ''))}{phrase} {rng.choice(('is such that', 'and', 'means that'))} {rest}"
        return text[0].upper() + text[1:]
    at = rng.choice(inside)
    if rng.random() < 0.12:
        phrase += rng.choice((" to ", " and ", ", ", " vs. ", " of ", "-to-", " or ")) + phrase
    keep = rng.random() < 0.3
    return " ".join([*parts[: at + keep], phrase, *parts[at + 1 :]])


def repeat(rng: Random, sentences: list[str]) -> list[str]:
    """The sentences with one to three terms in several of them, and openings that are alike."""
    found = list(sentences)
    if rng.random() < 0.3:
        terms = [found[0][a:b] for a, b in _runs(rng, found[0])]
    else:
        terms = [term(rng) for _ in range(rng.choice((1, 2, 2, 3)))]
    for phrase in terms:
        places = rng.sample(range(len(found)), min(len(found), rng.randint(1, 4)))
        for i in sorted({0, *places} if rng.random() < 0.7 else set(places)):
            found[i] = _put(rng, found[i], phrase)
            if rng.random() < 0.15:
                found[i] = _put(rng, found[i], phrase)
    if rng.random() < 0.35:
        opening = pick(rng, _OPENINGS)
        for i in range(len(found)):
            if rng.random() < 0.6 and found[i][1:2].islower():
                found[i] = opening + found[i][0].lower() + found[i][1:]
                opening = opening if rng.random() < 0.6 else pick(rng, _OPENINGS)
    return found


def _runs(rng: Random, sentence: str) -> list[tuple[int, int]]:
    """Places of one or two runs of two to five words of a sentence."""
    starts = [match.start() for match in re.finditer(r"(?<= )\w", sentence)]
    runs = []
    for _ in range(rng.choice((1, 2))):
        if len(starts) < 6:
            break
        first = rng.randrange(len(starts) - 5)
        runs.append((starts[first], starts[first + rng.randint(2, 5)] - 1))
    return runs
