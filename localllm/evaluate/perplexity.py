"""How well a model predicts tokens: mean negative log-likelihood and perplexity over supervised positions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localllm.types import Example


class Scorer(Protocol):
    """What is needed of an engine."""

    def logit_chunks(self, tokens: Sequence[int]) -> Iterable[tuple[int, NDArray[np.float32]]]:
        """(start, logits [n, n_vocab] of tokens start … start + n - 1), in order; each valid until the next."""
        ...


@dataclass(frozen=True)
class RowLoss:
    """One row."""

    nats: float
    """Summed over its supervised tokens."""
    tokens: int


@dataclass(frozen=True)
class Loss:
    """A model on some rows."""

    rows: tuple[RowLoss, ...]

    @property
    def tokens(self) -> int:
        """Supervised tokens that were predicted."""
        return sum(row.tokens for row in self.rows)

    @property
    def mean(self) -> float:
        """Nats a token, every token counting the same; not a number for no tokens."""
        return sum(row.nats for row in self.rows) / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        return exp(self.mean)


@dataclass(frozen=True)
class Change:
    """Base and adapter on the same rows."""

    base: Loss
    adapter: Loss

    @property
    def difference(self) -> float:
        """Nats a token; negative where the adapter predicts better."""
        return self.adapter.mean - self.base.mean

    @property
    def perplexity_change(self) -> float:
        """By what part the perplexity changed: 0.1 is 10% more."""
        return exp(self.difference) - 1

    @property
    def standard_error(self) -> float:
        """Of the difference, the rows being a sample: the error of a ratio of sums, paired by row; 0 for one row.

        Tokens of one row depend on each other, so rows are what is counted (Cochran 1977, section 6.3).
        """
        n, mean = len(self.base.rows), self.difference
        if n < 2 or not self.base.tokens:
            return 0.0
        pairs = zip(self.base.rows, self.adapter.rows, strict=True)
        spread = sum((b.nats - a.nats - mean * a.tokens) ** 2 for a, b in pairs)
        return math.sqrt(spread * n / (n - 1)) / self.base.tokens

    def record(self) -> dict[str, Any]:
        """For JSON, which has no infinity and nothing that is not a number: None stands for them."""
        values = {
            "rows": len(self.base.rows), "tokens": self.base.tokens, "base_loss": self.base.mean,
            "loss": self.adapter.mean, "base_perplexity": self.base.perplexity,
            "perplexity": self.adapter.perplexity, "perplexity_change": self.perplexity_change,
            "difference": self.difference, "standard_error": self.standard_error,
        }  # fmt: skip
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def exp(x: float) -> float:
    """e to the power of x; infinite where a float cannot hold it."""
    return math.exp(x) if x < 700 else math.inf if x == x else math.nan


def row_loss(scorer: Scorer, row: Example) -> RowLoss:
    """The loss of one row; its first token, which nothing precedes, is never counted.

    The logits of a part of the row are held at a time, and float64 copies of one position.
    """
    nats, tokens = 0.0, 0
    for start, logits in scorer.logit_chunks(row.tokens[:-1]):
        for position, scores in enumerate(logits, start + 1):
            if row.mask[position]:
                nats += negative_log_likelihood(scores, row.tokens[position])
                tokens += 1
    return RowLoss(nats, tokens)


def negative_log_likelihood(logits: NDArray[np.float32], token: int) -> float:
    """-log softmax(logits)[token], in nats, from logits [n_vocab]."""
    highest = float(logits.max())
    normal = highest + math.log(float(np.exp(logits.astype(np.float64) - highest).sum()))
    return normal - float(logits[token])
