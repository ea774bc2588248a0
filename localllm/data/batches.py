"""Examples to batches: rows of like length together, none dropped, in an order that the seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localllm.types import Example

SPREAD = 0.02
"""Part of its length by which a row may move up or down the order of lengths: epochs then differ in who meets whom."""


@dataclass(frozen=True)
class Batch:
    """Some examples, padded on the right to the longest."""

    tokens: NDArray[np.int32]
    """(rows, length); padding is 0 and never supervised."""
    positions: NDArray[np.int32]
    """Where a supervised token is predicted: flat indices into (rows, length - 1), one before the token."""
    targets: NDArray[np.int32]
    """The token to predict at each of `positions`."""
    n_tokens: int
    """Tokens without the padding."""


def epoch(
    examples: Sequence[Example], batch_size: int, seed: int, number: int, budget: int | None = None
) -> list[list[int]]:
    """Indices of the examples of each batch of one epoch; every example is in exactly one batch.

    A batch has at most `batch_size` rows and, unless it is a single row, at most `budget` tokens with its padding. All
    rows are sorted by length, give or take SPREAD and with equal ones shuffled, and cut into batches whose sizes are
    the same in every epoch; the order of the batches is shuffled. The place in a run is (number, index of the batch):
    an epoch is a function of its arguments alone.
    """
    rng = random.Random(f"{seed}/{number}")
    lengths = [len(e.tokens) for e in examples]
    keys = [(n * rng.uniform(1 - SPREAD, 1 + SPREAD), rng.random()) for n in lengths]
    order = sorted(range(len(examples)), key=keys.__getitem__)
    batches, start = [], 0
    for size in _sizes(sorted(lengths), batch_size, budget):
        batches.append(order[start : start + size])
        start += size
    rng.shuffle(batches)
    return batches


def count(examples: Sequence[Example], batch_size: int, budget: int | None = None) -> int:
    """Batches of each epoch."""
    return len(_sizes(sorted(len(e.tokens) for e in examples), batch_size, budget))


def _sizes(lengths: Sequence[int], batch_size: int, budget: int | None) -> list[int]:
    """How many rows each batch has, from the shortest rows to the longest.

    A row that has moved by SPREAD stands where one was that is longer or shorter by twice that at most.
    """
    most = 1.0 if budget is None else budget * (1 - SPREAD) / (1 + SPREAD)
    sizes: list[int] = []
    for length in lengths:
        full = not sizes or sizes[-1] == batch_size
        if full or (budget is not None and (sizes[-1] + 1) * length > most):
            sizes.append(0)
        sizes[-1] += 1
    return sizes


def by_length(examples: Sequence[Example], batch_size: int, budget: int | None = None) -> Iterator[Batch]:
    """Every example once, sorted by length, for evaluation."""
    order, start = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens)), 0
    for size in _sizes([len(examples[i].tokens) for i in order], batch_size, budget):
        yield collate([examples[i] for i in order[start : start + size]])
        start += size


def collate(examples: Sequence[Example]) -> Batch:
    """Pad examples into one batch. The first token of a row is never a target: nothing comes before it."""
    length = max(len(e.tokens) for e in examples)
    tokens = np.zeros((len(examples), length), np.int32)
    mask = np.zeros((len(examples), length), bool)
    for row, example in enumerate(examples):
        tokens[row, : len(example.tokens)] = example.tokens
        mask[row, : len(example.mask)] = example.mask
    supervised = mask[:, 1:]
    positions = np.flatnonzero(supervised).astype(np.int32)
    return Batch(tokens, positions, tokens[:, 1:][supervised], sum(len(e.tokens) for e in examples))
