"""The stream of training examples: kinds of conversations in fixed shares, packed, each batch from its own seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from . import book, manual, questions, records, summarize, talk
from .corpus import Passage
from .passages import Source
from .summarize import Messages
from .tokenizer import encode_example

KINDS: tuple[Callable[[Random, Source], Messages], ...] = (
    summarize.single,
    summarize.combine,
    summarize.repeat,
    questions.about,
    talk.chat,
    records.extract,
    summarize.program,
    book.read,
    manual.read,
    questions.absent,
)
EARLY = (0.22, 0.03, 0.01, 0.28, 0.05, 0.41, 0, 0, 0, 0)
LATE = (0.36, 0.04, 0.02, 0.30, 0.06, 0.22, 0, 0, 0, 0)
READ = (0.17, 0.01, 0.09, 0.09, 0.03, 0.06, 0.17, 0.20, 0.18, 0)
LAST = (0.17, 0.01, 0.05, 0.13, 0.03, 0.10, 0.15, 0.13, 0.17, 0.06)
FIND = (0.12, 0.01, 0.04, 0.11, 0.03, 0.10, 0.12, 0.30, 0.10, 0.07)
SETTLE = (0.20, 0.02, 0.05, 0.08, 0.03, 0.10, 0.19, 0.22, 0.06, 0.05)
LEAD = (0.26, 0.02, 0.06, 0.07, 0.03, 0.10, 0.17, 0.20, 0.06, 0.03)
"""Shares of the kinds: many records first, from which looking things up is learned soonest; then more prose, the
program's own requests and its handbook, more that is not in the text, many of the questions that are written for the
handbook, and at last, in two steps, more summaries again."""
LONGEST = 1000


@dataclass(frozen=True)
class Batch:
    """Documents end to end: ids and whether each is learned, both of length N, and the lengths of the documents."""

    ids: list[int]
    learned: list[bool]
    lengths: list[int]


def divide(passages: list[Passage]) -> tuple[Source, Source]:
    """Passages for training, and every twentieth for measuring."""
    kept = [p for i, p in enumerate(passages) if i % 20 != 7]
    return Source(kept), Source([p for i, p in enumerate(passages) if i % 20 == 7])


def conversation(rng: Random, source: Source, shares: Sequence[float] = EARLY) -> Messages:
    """One conversation of a kind drawn by share."""
    return rng.choices(KINDS, shares)[0](rng, source)


def batch(tokenizer: Tokenizer, source: Source, seed: int, tokens: int, shares: Sequence[float] = EARLY) -> Batch:
    """Whole documents, then padding, `tokens` tokens in all; seed and shares alone decide which."""
    rng = Random(seed)
    ids: list[int] = []
    learned: list[bool] = []
    lengths: list[int] = []
    while True:
        more, wanted = encode_example(tokenizer, conversation(rng, source, shares))
        if len(more) > min(LONGEST, tokens):
            continue
        if lengths and len(ids) + len(more) > tokens:
            rest = tokens - len(ids)
            return Batch(ids + [0] * rest, learned + [False] * rest, lengths + [rest] * (rest > 0))
        ids, learned = ids + more, learned + wanted
        lengths.append(len(more))


def sample_texts(source: Source, count: int, seed: int = 1) -> list[str]:
    """Texts of generated conversations, for the tokenizer to learn their words and forms."""
    rng = Random(seed)
    return [m["content"] for _ in range(count) for m in conversation(rng, source)]
