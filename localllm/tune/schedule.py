"""How the learning rate goes over a run."""

from __future__ import annotations

import math

from localllm.tune.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine or a line down to a tenth, or nothing of the kind; steps count from 1."""
    warmup = max(1, round(config.warmup * steps)) if config.warmup else 0
    if step <= warmup:
        return config.learning_rate * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    left = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress, "constant": 1.0}
    return config.learning_rate * (0.1 + 0.9 * left[config.schedule])
