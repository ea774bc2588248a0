"""Settings of a training run, with defaults that fit 50 to 5,000 rows."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what is learned, besides the model and the rows."""

    epochs: int
    batch_size: int
    learning_rate: float
    """The highest; it warms up to this and falls to a tenth along a cosine."""
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    seed: int = 0
    max_steps: int | None = None
    """Stop after this many steps, even in the middle of an epoch."""
    warmup: float = 0.05
    """Part of all steps over which the learning rate rises."""
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def steps(self, rows: int) -> int:
        """Optimizer steps of a run over so many rows."""
        steps = self.epochs * math.ceil(rows / self.batch_size)
        return min(steps, self.max_steps) if self.max_steps else steps


def default_epochs(rows: int) -> int:
    """About 1,000 rows in all, but between 2 and 10 times each."""
    return min(10, max(2, round(1000 / max(rows, 1))))


def default_batch_size(rows: int) -> int:
    """8, or 4 for small sets, which need the steps more than the speed."""
    return 8 if rows >= 256 else max(1, min(4, rows // 2))


def default_learning_rate(width: int) -> float:
    """2e-4 for models 2048 wide, as is usual for LoRA; narrower ones bear and need more, up to 8e-4."""
    return 2e-4 * min(4.0, max(0.5, 2048 / width))
