"""The stream of training examples: kinds of conversations in fixed shares, packed, each batch from its own seed."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from . import questions, records, summarize, talk
from .corpus import Passage
from .passages import Source
from .summarize import Messages
from .tokenizer import encode_example

KINDS: dict[Callable[[Random, Source], Messages], float] = {
    summarize.single: 0.36,
    summarize.combine: 0.04,
    summarize.repeat: 0.02,
    questions.about: 0.30,
    talk.chat: 0.06,
    records.extract: 0.22,
}
"""Shares of the examples; talk is short, so its share of the tokens is smaller still."""
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


def conversation(rng: Random, source: Source) -> Messages:
    """One conversation of a kind drawn by share."""
    return rng.choices(list(KINDS), list(KINDS.values()))[0](rng, source)


def batch(tokenizer: Tokenizer, source: Source, seed: int, tokens: int) -> Batch:
    """Whole documents, then padding, `tokens` tokens in all; the seed alone decides which."""
    rng = Random(seed)
    ids: list[int] = []
    learned: list[bool] = []
    lengths: list[int] = []
    while True:
        more, wanted = encode_example(tokenizer, conversation(rng, source))
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
