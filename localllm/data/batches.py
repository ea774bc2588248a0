"""Examples to batches: rows of like length together, none dropped, in an order that the seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localllm.types import Example


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


def epoch(examples: Sequence[Example], batch_size: int, seed: int, number: int) -> list[list[int]]:
    """Indices of the examples of each batch of one epoch; every example is in exactly one batch.

    Rows are shuffled, then sorted by length within stretches of some batches: lengths within a batch are alike and the
    batches still differ from epoch to epoch. The order of the batches is shuffled too.
    """
    rng = random.Random(f"{seed}/{number}")
    order = list(range(len(examples)))
    rng.shuffle(order)
    stretch = batch_size * 8
    batches = []
    for start in range(0, len(order), stretch):
        part = sorted(order[start : start + stretch], key=lambda i: len(examples[i].tokens))
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    rng.shuffle(batches)
    return batches


def by_length(examples: Sequence[Example], batch_size: int) -> Iterator[Batch]:
    """Every example once, sorted by length, for evaluation."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].tokens))
    for start in range(0, len(order), batch_size):
        yield collate([examples[i] for i in order[start : start + batch_size]])


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
