"""What a run has done so far, besides its arrays: plain values that survive JSON to the bit."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Progress:
    """Changed in place by the loop; whole after each step and each validation."""

    epoch: int = 1
    """The one that is going on, from 1."""
    batch: int = 0
    """Batches of it that are done."""
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Spent in steps."""
    elapsed: float = 0.0
    """Spent in all, by the processes of this run that came before."""
    first: float | None = None
    """Validation loss of the base."""
    start: float | None = None
    """Loss of the first step."""
    best: float = math.inf
    best_epoch: int = 0
    stale: int = 0
    """Validations since the best."""
    recent: list[float] = field(default_factory=list)
    """Losses of the last steps."""
    diverged: bool = False
    early: bool = False
    """It stopped because nothing got better."""
    finished: bool = False
    log: list[str] = field(default_factory=list)
    """Events so far, as JSON lines."""

    def facts(self) -> dict[str, Any]:
        return asdict(self)
