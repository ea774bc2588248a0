"""Questions as people type them: around a few words, in three voices, with the mistakes of each."""

import re
from random import Random

from .words import pick

_PLAIN = (
    "{a}|{a}|{a}|{a}?|{a}?|what about {a}?|help with {a}|I need help with {a}|tell me about {a}|explain {a}|"
    "{a}, what now?|what is meant by {a}?|can you explain {a} to me?|what should I know about {a}?|"
    "how does {a} work?|question: {a}|I have a question about {a}|what is {a}?|what does {a} mean?|"
    "what is {a} for?|how to {a}|how to {a}?|how do I {a}?|how can I {a}?|can I {a}?|is it possible to {a}?|"
    "where do I find {a}?|I want {a}|I want to {a}|why {a}?|when do I need {a}?|do I need {a}?|it says {a}|"
    "what can I do about {a}?|is there {a}?|which {a}?|{a} meaning|meaning of {a}|{a} command|{a} option|{a} how|"
    "{a} vs {b}|difference between {a} and {b}|{a} and {b}|{a}, or {b}?|{a} ({b})|I mean {a}: {b}|{a}. {b}?|"
    "{b}, so {a}?|what has {a} to do with {b}?|is {a} the same as {b}?|{a} not working|problem with {a}|{a} error|"
    "{a} please|please explain {a} in simple words|what is the use of {a}?|should I care about {a}?|"
    "is {a} worth it?|does it have {a}?|does it support {a}?|how much {a}?|how many {a}?"
)
_BEFORE = (
    "Hi, |Hello, |Sorry, |I am new here, |I'm lost: |My boss asks: |my colleague says there is something, |"
    "Quick question: |I just started, |On my laptop, |On my old computer, |Yesterday it worked, but now: |"
    "My daughter wants to know: |I read somewhere about it, |For my work I need to know: |ok, |so, |um, |"
    "I tried everything, |Since this morning, |I am not a programmer, |In the terminal, |With my own model, |"
    "After an hour of waiting, |I don't get it, |Everybody talks about it, |Before I begin, |It is strange, |"
    "As a beginner, |I have a file here and |I typed it in and |We have a small firm, |My teacher said, "
)
_AFTER = (
    ", please| please|, thanks|, any idea?|, is that right?| on my machine| in this program| here| with this thing|"
    ", how do I do that?|, what should I do?|, what do I type?|, can it do that?|, is that possible?| again|"
    ", or is that not possible?| for me|, and why?|, what is that?| from now on| myself| at home|, what happened?"
)
_SWAPS = (
    ("ie", "ei"), ("ei", "ie"), ("ll", "l"), ("ss", "s"), ("mm", "m"), ("nn", "n"), ("tt", "t"), ("l", "ll"),
    ("tion", "cion"), ("tion", "sion"), ("ph", "f"), ("wh", "w"), ("th", "t"), ("ch", "sh"), ("e", "a"), ("a", "e"),
    ("i", "e"), ("c", "k"), ("k", "ck"), ("er", "ar"), ("ou", "u"), ("y", "i"), ("m", "mm"), ("n", "nn"),
)  # fmt: skip
_FOREIGN = (
    ("do I", "I"), ("how can I", "how i can"), ("is it", "it is"), ("does it", "it does"), ("what is", "what means"),
    ("the ", ""), ("a ", ""), ("my", "the my"), ("does", "do"), ("I want", "i want that"), ("it", "he"),
    ("information", "informations"), ("is there", "it gives"), ("What does", "What do"), ("to ", "for "),
)  # fmt: skip


def misspell(rng: Random, text: str, share: float) -> str:
    """A share of the longer words with one mistake each."""

    def spoil(match: re.Match[str]) -> str:
        word = match[0]
        if rng.random() > share:
            return word
        if rng.random() < 0.5:
            fitting = [(a, b) for a, b in _SWAPS if a in word[1:]]
            if fitting:
                a, b = rng.choice(fitting)
                return word[0] + word[1:].replace(a, b, 1)
        at = rng.randint(1, len(word) - 2)
        kind = rng.random()
        if kind < 0.4:
            return word[:at] + word[at + 1 :]
        if kind < 0.7:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        return word[:at] + word[at] + word[at:]

    return re.sub(r"(?<![\w-])[A-Za-z]{4,}(?!\w)", spoil, text)


def ask(rng: Random, about: str, beside: str) -> str:
    """A question around one thing, or around two that go together."""
    return voiced(rng, pick(rng, _PLAIN).format(a=about, b=beside))


def voiced(rng: Random, question: str) -> str:
    """A question in one of the voices: as it is, as a newcomer puts it, curt, or with mistakes."""
    kind = rng.random()
    if kind < 0.3:
        return question
    if kind < 0.55:
        before = pick(rng, _BEFORE) if rng.random() < 0.6 else ""
        after = pick(rng, _AFTER) if rng.random() < 0.5 else ""
        end = question[-1] if question[-1] in "?." else ""
        question = before + question.rstrip("?.") + after.rstrip("?") + ("?" if after.endswith("?") else end)
        return question[0].upper() + question[1:] if rng.random() < 0.6 else question
    if kind < 0.7:
        return question.lower().rstrip("?.")
    for old, new in rng.sample(_FOREIGN, 3):
        if rng.random() < 0.5:
            question = re.sub(rf"\b{old}", new, question, count=1)
    question = misspell(rng, question, rng.choice((0.1, 0.25, 0.4)))
    return question.lower() if rng.random() < 0.5 else question
