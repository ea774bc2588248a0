"""Names, codes, dates, products and invented words for generated text; everything is drawn from a seeded `Random`."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from random import Random

_LISTS = {
    name: [word.replace("_", " ") for word in text.split()]
    for name, text in tomllib.loads((Path(__file__).parent / "words.toml").read_text(encoding="utf-8")).items()
}
FIRST, LAST, CITIES = _LISTS["first"], _LISTS["last"], _LISTS["cities"]
MONTHS, DAYS, JOBS = _LISTS["months"], _LISTS["days"], _LISTS["jobs"]
COLOURS, ITEMS = _LISTS["colours"], _LISTS["items"]
HEADS, MODIFIERS = _LISTS["heads"], _LISTS["modifiers"]
COMMON = frozenset(_LISTS["common"])


def pick(rng: Random, options: str) -> str:
    """One of the options between bars."""
    return rng.choice(options.split("|"))


def invent(rng: Random, syllables: int | None = None) -> str:
    """A word that does not exist, in small letters."""
    count = syllables or rng.choices((1, 2, 3, 4), (1, 5, 5, 2))[0]
    return "".join(
        rng.choice(_LISTS["onset"])
        + rng.choice(_LISTS["vowel"])
        + (rng.choice(_LISTS["coda"]) if rng.random() < 0.5 else "")
        for _ in range(count)
    )


def first_name(rng: Random) -> str:
    """A given name, sometimes an invented one."""
    return rng.choice(FIRST) if rng.random() < 0.6 else invent(rng, 2).capitalize()


def last_name(rng: Random) -> str:
    """A family name, often an invented one."""
    return rng.choice(LAST) if rng.random() < 0.5 else invent(rng, rng.choice((2, 3))).capitalize()


def person(rng: Random) -> str:
    """A full name."""
    middle = f" {rng.choice('ABCDEFGHJKLMNPRSTVW')}." if rng.random() < 0.06 else ""
    return f"{first_name(rng)}{middle} {last_name(rng)}"


def city(rng: Random) -> str:
    """A town, sometimes an invented one."""
    return rng.choice(CITIES) if rng.random() < 0.6 else invent(rng).capitalize()


def company(rng: Random) -> str:
    """The name of a firm."""
    end = rng.choice(("", "", " Ltd", " Labs", " Group", " & Sons", " Systems", " Foods", " Bank"))
    return (last_name(rng) if rng.random() < 0.4 else invent(rng).capitalize()) + end


def digits(rng: Random, low: int, high: int) -> str:
    """Between `low` and `high` digits, the first not zero."""
    return str(rng.randint(1, 9)) + "".join(str(rng.randint(0, 9)) for _ in range(rng.randint(low, high) - 1))


def letters(rng: Random, count: int) -> str:
    """Capital letters."""
    return "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(count))


def code(rng: Random) -> str:
    """An order, ticket or part number."""
    forms = (
        lambda: digits(rng, 4, 8),
        lambda: f"{letters(rng, rng.randint(1, 3))}-{digits(rng, 3, 6)}",
        lambda: f"{letters(rng, 2)}{digits(rng, 3, 6)}",
        lambda: f"#{digits(rng, 3, 6)}",
        lambda: f"{digits(rng, 3, 3)}-{digits(rng, 4, 4)}",
        lambda: f"{letters(rng, 1)}{digits(rng, 1, 2)}-{letters(rng, 2)}{digits(rng, 2, 3)}",
        lambda: f"{invent(rng, 1).upper()}-{digits(rng, 2, 4)}",
    )
    return rng.choice(forms)()


def date(rng: Random) -> str:
    """A date in one of the usual forms."""
    day, month, year = rng.randint(1, 28), rng.choice(MONTHS), rng.randint(1950, 2030)
    forms = (
        f"{day} {month} {year}",
        f"{month} {day}, {year}",
        f"{day} {month}",
        f"{month} {day}",
        f"{year}-{rng.randint(1, 12):02}-{day:02}",
    )
    return rng.choice((*forms, f"{rng.choice(DAYS)}, {day} {month}"))


def clock(rng: Random) -> str:
    """A time of day."""
    hour, minute = rng.randint(1, 12), rng.choice(("00", "15", "20", "30", "40", "45"))
    return rng.choice((f"{hour}:{minute}", f"{hour} o'clock", f"{hour} pm", f"{hour + 11}:{minute}"))


def amount(rng: Random) -> str:
    """A sum of money."""
    whole = digits(rng, 1, 4)
    return rng.choice(
        (
            f"${whole}",
            f"${whole}.{rng.randint(10, 99)}",
            f"{whole} euros",
            f"{whole}.{rng.randint(10, 99)} EUR",
            f"£{whole}",
        )
    )


def item(rng: Random) -> str:
    """Something that can be bought."""
    thing = rng.choice(ITEMS) if rng.random() < 0.75 else invent(rng)
    kind = rng.random()
    if kind < 0.3:
        return f"{rng.choice(COLOURS)} {thing}"
    if kind < 0.5:
        return f"{invent(rng, 2).capitalize()} {thing}"
    return f"{invent(rng, 2).capitalize()} {letters(rng, 1)}{digits(rng, 1, 3)}" if kind < 0.58 else thing


def email(rng: Random) -> str:
    """An address at an invented host."""
    return (
        f"{first_name(rng).lower()}.{last_name(rng).lower()}@{invent(rng, 2)}.{rng.choice(('com', 'org', 'net', 'io'))}"
    )


def pieced(rng: Random, pieces: Sequence[str]) -> str:
    """A word put together from one to three pieces, each as likely as any other."""
    return "".join(rng.choice(pieces) for _ in range(rng.choice((1, 1, 2, 2, 3))))


def with_invented(rng: Random, sentences: list[str], share: float, pieces: Sequence[str] = ()) -> list[str]:
    """The sentences with a share of their long words replaced, each word by the same invented one everywhere.

    With `pieces` a word is made of those, and short words are replaced too.
    """
    swap: dict[str, str] = {}

    def replace(match: re.Match[str]) -> str:
        word = match[0]
        key = word.lower()
        if key not in swap:
            new = pieced(rng, pieces) if pieces else invent(rng, rng.choice((2, 3, 3, 4)))
            swap[key] = new if rng.random() < share else key
        if swap[key] == key:
            return word
        return swap[key].capitalize() if word[0].isupper() else swap[key]

    long = 4 if pieces else 6
    return [re.sub(rf"\b[A-Za-z]{{{long},}}\b", replace, s) for s in sentences]
