"""The training loop: epochs of batches, validation after each, the best adapter kept."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.nn.utils import value_and_grad

from localllm.data.batches import Batch, by_length, collate, epoch
from localllm.errors import TrainingError
from localllm.tune.config import TrainConfig
from localllm.tune.events import Evaluated, Step, Trained, TuneEvent, Warned
from localllm.tune.loss import batch_loss
from localllm.types import Example


class _DivergedError(Exception):
    """The loss or the gradient was no longer a number."""


def train(
    model: Any,
    config: TrainConfig,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    keep: Callable[[Any], None],
) -> Iterator[TuneEvent]:
    """Train the model's trainable parameters; `keep(model)` is called whenever they are the best so far.

    Yields a Step for every step, Evaluated before the first and after each epoch, and Trained at the end. A loss that
    is not a number ends the run with the best so far; raises TrainingError where no epoch had been finished.
    """
    start, run = time.perf_counter(), _Run(model, config, examples)
    first = evaluate(model, held_out, config.batch_size)
    yield Evaluated(0, 0, first, best=True)
    best, best_epoch, diverged = math.inf, 0, False
    try:
        for number in range(1, config.epochs + 1):
            yield from run.epoch(number)
            loss = evaluate(model, held_out, config.batch_size)
            if better := loss < best:
                best, best_epoch = loss, number
                keep(model)
            yield Evaluated(number, run.step, loss, better)
            if run.step == run.steps:
                break
    except _DivergedError:
        diverged = True
    yield from _remarks(run.step, best, first, diverged)
    yield Trained(run.step, best_epoch, best, first, diverged, run.tokens, time.perf_counter() - start, peak_rss_mb())


class _Run:
    """The optimizer and what has been done so far."""

    def __init__(self, model: Any, config: TrainConfig, examples: Sequence[Example]) -> None:
        self.model, self.config, self.examples = model, config, examples
        self.steps = config.steps(len(examples))
        self.step = self.tokens = 0
        self.seconds = 0.0
        # without bias correction, MLX's default, the first steps would be three times too long
        self._optimizer = optim.AdamW(config.learning_rate, weight_decay=config.weight_decay, bias_correction=True)
        self._gradient = value_and_grad(model, batch_loss)

    def epoch(self, number: int) -> Iterator[Step]:
        """The steps of one epoch, up to the run's last. Raises _DivergedError."""
        self.model.train()
        for indices in epoch(self.examples, self.config.batch_size, self.config.seed, number):
            started = time.perf_counter()
            batch = collate([self.examples[i] for i in indices])
            self.step += 1
            rate = learning_rate(self.config, self.step, self.steps)
            loss = self._update(batch, rate)
            self.tokens += batch.n_tokens
            self.seconds += time.perf_counter() - started
            eta = self.seconds / self.step * (self.steps - self.step)
            speed = self.tokens / max(self.seconds, 1e-9)
            yield Step(self.step, self.steps, number, loss, rate, self.tokens, speed, eta)
            if self.step == self.steps:
                return

    def _update(self, batch: Batch, rate: float) -> float:
        """One step; returns the loss before it. Nothing is changed when the gradient is not finite."""
        loss, gradients = self._gradient(self.model, batch)
        gradients, norm = optim.clip_grad_norm(gradients, self.config.clip_norm)  # type: ignore[no-untyped-call]
        mx.eval(loss, norm)
        if not (math.isfinite(loss.item()) and math.isfinite(norm.item())):
            raise _DivergedError
        self._optimizer.learning_rate = rate
        self._optimizer.update(self.model, gradients)
        mx.eval(self.model.trainable_parameters(), self._optimizer.state)
        return float(loss.item())


def _remarks(step: int, best: float, first: float, diverged: bool) -> Iterator[Warned]:
    """What to say about a run that did not go well. Raises TrainingError when there is nothing to keep."""
    if diverged and not math.isfinite(best):
        problem = f"Training diverged at step {step}: the loss is no longer a number."
        raise TrainingError(problem, "Use a smaller --learning-rate.")
    if diverged:
        yield Warned(f"The loss was no longer a number at step {step}; the best adapter before that is kept.")
    if best >= first:
        yield Warned(
            f"The validation loss never fell below that of the base ({first:.3f}). Try more --epochs, another "
            "--learning-rate, or more rows."
        )


def evaluate(model: Any, examples: Sequence[Example], batch_size: int) -> float:
    """Mean cross-entropy over all supervised tokens of the examples, in nats."""
    model.eval()
    total, count = 0.0, 0
    for batch in by_length(examples, batch_size):
        total += float(np.array(batch_loss(model, batch))) * len(batch.targets)
        count += len(batch.targets)
    return total / max(count, 1)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a tenth; steps count from 1."""
    warmup = max(1, round(config.warmup * steps))
    if step <= warmup:
        return config.learning_rate * step / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))


def peak_rss_mb() -> float:
    """Most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
