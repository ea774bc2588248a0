"""Settings of a training run, with defaults that fit 50 to 5,000 rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Optimizer = Literal["adamw", "adafactor", "lion", "muon"]
Schedule = Literal["cosine", "linear", "constant"]
RATES: dict[Optimizer, float] = {"adamw": 1.0, "adafactor": 1.0, "lion": 0.4, "muon": 10.0}
"""The default learning rate of each over that of AdamW: what did best on the sample tickets with the built-in model."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what is learned, besides the model and the rows."""

    epochs: int
    batch_size: int
    """Rows of a batch at most."""
    learning_rate: float
    """The highest; it warms up to this and falls as `schedule` says."""
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
    """The longest that the gradient of a step may be; 0: any."""
    batch_tokens: int | None = 4096
    """Tokens of a batch with its padding at most, unless it is a single row."""
    accumulate: int = 1
    """Batches of one step."""
    optimizer: Optimizer = "adamw"
    schedule: Schedule = "cosine"
    rslora: bool = False
    """Scale with alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023)."""
    lora_plus: float = 1.0
    """Learning rate of B over that of A (Hayou et al. 2024, who recommend 16)."""
    targets: tuple[str, ...] = ()
    """Matrices of a layer that are adapted ("self_attn.q_proj"); empty: those of the architecture."""
    layers: int | None = None
    """Only the last so many layers."""
    patience: int | None = None
    """Stop after so many validations in a row without a new best."""
    grad_checkpoint: bool = False
    """Compute each layer twice instead of holding its activations."""

    def steps(self, batches: int) -> int:
        """Optimizer steps of a run with so many batches in an epoch."""
        steps = self.epochs * math.ceil(batches / self.accumulate)
        return min(steps, self.max_steps) if self.max_steps else steps

    @property
    def scale(self) -> float:
        """What the low-rank product is multiplied with."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


def default_epochs(rows: int) -> int:
    """About 1,000 rows in all, but between 2 and 10 times each."""
    return min(10, max(2, round(1000 / max(rows, 1))))


def default_batch_size(rows: int) -> int:
    """8, or 4 for small sets, which need the steps more than the speed."""
    return 8 if rows >= 256 else max(1, min(4, rows // 2))


def default_learning_rate(width: int, optimizer: Optimizer = "adamw") -> float:
    """2e-4 for models 2048 wide, as is usual for LoRA; narrower ones bear and need more, up to 8e-4.

    The steps of Lion are longer at the same rate, those of Muon shorter.
    """
    return 2e-4 * min(4.0, max(0.5, 2048 / width)) * RATES[optimizer]
