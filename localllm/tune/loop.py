"""The training loop: epochs of batches, validation after each, the best adapter kept, each step one to go on from."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_map
from numpy.typing import NDArray

from localllm.data.batches import Batch, by_length, collate, count, epoch
from localllm.errors import TrainingError
from localllm.tune.config import TrainConfig
from localllm.tune.events import Evaluated, Step, Trained, TuneEvent, Warned, encode
from localllm.tune.group import ALONE, Group
from localllm.tune.lora import tensors
from localllm.tune.loss import batch_loss
from localllm.tune.optimizer import Stepper
from localllm.tune.randomness import random_key, set_random_key
from localllm.tune.saving import Saver
from localllm.tune.schedule import learning_rate
from localllm.tune.state import Progress
from localllm.types import Example
from localllm.weights.safetensors import Matrix

Keep = Callable[[dict[str, Matrix], Sequence[str]], None]
"""Given the best adapter's tensors and the events of the whole run as JSON lines."""
RECENT = 8
"""Steps whose mean loss tells whether a run has gone astray."""


class _DivergedError(Exception):
    """The loss or the gradient was no longer a number, or the loss out of all bounds."""


def train(
    model: Any,
    config: TrainConfig,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    keep: Keep,
    saver: Saver | None = None,
    group: Group = ALONE,
) -> Iterator[TuneEvent]:
    """Train the model's trainable parameters; `keep` is called with the best ones before Trained is yielded.

    With a `saver` the run goes on from its newest checkpoint, and ends without Trained where the saver says stop.
    Yields a Step for every step, Evaluated before the first and after each epoch, and Trained at the end. A loss that
    is not a number, or many times that of the start, ends the run with the best so far; raises TrainingError where no
    epoch had been finished.

    The processes of a `group` have one run together: each computes its share of the rows of each batch, and all yield
    the same losses and have the same adapter. Without dropout it equals that of one process to the rounding of sums;
    with dropout it does not, for which numbers are dropped depends on how the rows are shared out.
    """
    start, run = time.perf_counter(), Run(model, config, examples, held_out, group)
    if saver is not None:
        run.finish = saver.finish
        yield from saver.restore(run)
    before = run.progress.elapsed
    for event in run.events():
        run.progress.elapsed = before + time.perf_counter() - start
        run.progress.log.append(encode(event))
        yield event
        if saver is not None:
            stop = group.any(saver.stop)  # asked once: all processes stop after the same step
            yield from saver.after_step(run, stop) if isinstance(event, Step) else ()
            if stop:
                return
    yield from _ended(run, keep, saver)


def _ended(run: Run, keep: Keep, saver: Saver | None) -> Iterator[TuneEvent]:
    p = run.progress
    if p.diverged and not run.best:
        if saver is not None:
            saver.discard()
        problem = "the loss is no longer a number, or many times that of the start"
        raise TrainingError(f"Training diverged after step {p.step}: {problem}.", "Use a smaller --learning-rate.")
    if not p.finished:
        p.finished = True
        p.log += [encode(warning) for warning in _remarks(run)]
        if saver is not None:
            yield from saver.save(run)
    yield from _remarks(run)
    first, peak = p.first or 0.0, peak_rss_mb()
    trained = Trained(p.step, p.best_epoch, p.best, first, p.diverged, p.tokens, p.elapsed, peak, p.early)
    keep(run.best, [*p.log, encode(trained)])
    yield trained


def _remarks(run: Run) -> Iterator[Warned]:
    """What to say about a run that did not go well, or not to its end."""
    p = run.progress
    if p.step < run.steps and not (p.diverged or p.early):
        yield Warned(f"Training was ended at step {p.step} of {run.steps}, as asked; the best so far is kept.")
    if p.diverged:
        yield Warned(
            f"The loss was no longer a number after step {p.step}, or many times that of the start; the best adapter "
            "before that is kept. Try a smaller --learning-rate, or a longer --warmup."
        )
    if p.best >= (p.first or 0.0):
        yield Warned(
            f"The validation loss never fell below that of the base ({p.first:.3f}). Try more --epochs, another "
            "--learning-rate, or more rows."
        )


class Run:
    """The model, its optimizer, and what has been done so far."""

    def __init__(
        self,
        model: Any,
        config: TrainConfig,
        examples: Sequence[Example],
        held_out: Sequence[Example],
        group: Group = ALONE,
    ) -> None:
        self.model, self.config, self.examples, self.held_out = model, config, examples, held_out
        self._group = group
        self.steps = config.steps(count(examples, config.batch_size, config.batch_tokens))
        self.progress = Progress()
        self.best: dict[str, Matrix] = {}
        """The tensors of the best adapter so far."""
        self.finish: Callable[[], bool] = lambda: False
        """Whether to end before the last step, with the best so far or what there is now, whichever is better."""
        self._stepper = Stepper(model, config)
        self._gradient = value_and_grad(model, batch_loss)

    def events(self) -> Iterator[Step | Evaluated]:
        """From where the run stands to its end; `progress` is whole at each of them."""
        p, config = self.progress, self.config
        if p.first is None:
            p.first = evaluate(self.model, self.held_out, config, self._group)
            yield Evaluated(0, 0, p.first, best=True)
        try:
            while not self._over():
                yield from self._epoch()
                yield self._validated()
        except _DivergedError:
            p.diverged = True

    def _over(self) -> bool:
        p = self.progress
        if p.diverged or p.early or p.finished or p.epoch > self.config.epochs:
            return True
        return p.batch == 0 and (p.step == self.steps or (p.step > 0 and self.finish()))

    def _epoch(self) -> Iterator[Step]:
        """The rest of the epoch, up to the run's last step, or less of it where `finish`. Raises _DivergedError."""
        p, config = self.progress, self.config
        self.model.train()
        order = epoch(self.examples, config.batch_size, config.seed, p.epoch, config.batch_tokens)
        while p.batch < len(order) and p.step < self.steps and not (p.step and self.finish()):
            started, indices = time.perf_counter(), order[p.batch : p.batch + config.accumulate]
            rows = [i for batch in indices for i in batch]
            shares = [share for batch in indices if (share := self._group.share(batch))]
            batches = [collate([self.examples[i] for i in share]) for share in shares]
            rate = learning_rate(config, p.step + 1, self.steps)
            self._group.reseed(config.seed, p.step)
            loss = self._update(batches, rate, _learned([self.examples[i] for i in rows]))
            p.step += 1
            p.batch += len(indices)
            p.tokens += sum(len(self.examples[i].tokens) for i in rows)
            p.seconds += time.perf_counter() - started
            self._note(loss)
            eta, speed = p.seconds / p.step * (self.steps - p.step), p.tokens / max(p.seconds, 1e-9)
            yield Step(p.step, self.steps, p.epoch, loss, rate, p.tokens, speed, eta, rows, peak_mb())

    def _validated(self) -> Evaluated:
        """The end of an epoch: the loss on the validation rows, and whether it is the best."""
        p = self.progress
        loss = evaluate(self.model, self.held_out, self.config, self._group)
        if not math.isfinite(loss):
            raise _DivergedError
        number, better = p.epoch, loss < p.best
        if better:
            p.best, p.best_epoch, p.stale = loss, number, 0
            self.best = tensors(self.model)
        else:
            p.stale += 1
        p.early = self.config.patience is not None and p.stale >= self.config.patience
        p.epoch, p.batch = number + 1, 0
        return Evaluated(number, p.step, loss, better)

    def _update(self, batches: Sequence[Batch], rate: float, learned: int | None = None) -> float:
        """One step; returns the loss before it. Nothing is changed when the gradient is not finite.

        `batches` are this process's share of the step, and `learned` the supervised tokens of the whole step.
        """
        learned = sum(batch.targets.size for batch in batches) if learned is None else learned
        if not learned:  # nothing to learn in these rows
            return 0.0
        total, gradients = self._group.sum_gradients(*self._differentiated(batches, learned))
        gradients, norm = optim.clip_grad_norm(gradients, self.config.clip_norm or math.inf)  # type: ignore[no-untyped-call]
        if not (math.isfinite(total) and math.isfinite(norm.item())):
            raise _DivergedError
        self._stepper.update(gradients, rate)
        return total

    def _differentiated(self, batches: Sequence[Batch], learned: int) -> tuple[float, Any]:
        """Loss and gradients of the batches, both divided by `learned`; zeros for nothing."""
        total, gradients = 0.0, None
        for batch in batches:
            if not batch.targets.size:
                continue
            loss, part = self._gradient(self.model, batch, learned)
            gradients = part if gradients is None else tree_map(mx.add, gradients, part)
            mx.eval(loss, gradients)
            total += float(loss.item())
        if gradients is None:
            gradients = tree_map(mx.zeros_like, self.model.trainable_parameters())
        return total, gradients

    def _note(self, loss: float) -> None:
        """Raises _DivergedError when the last losses are many times what they were at the start."""
        p = self.progress
        p.start = loss if p.start is None else p.start
        p.recent = [*p.recent, loss][-RECENT:]
        usual = max(p.start, p.first or 0.0)
        if len(p.recent) == RECENT and sum(p.recent) / RECENT > 2 * usual + 2:
            raise _DivergedError

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that is needed to go on, besides `progress`."""
        parts = {"adapter": tensors(self.model), "best": self.best, "optimizer": self._stepper.arrays()}
        flat = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        return flat | {"random": random_key()}

    def restore(self, arrays: Mapping[str, NDArray[Any]], progress: Progress) -> None:
        """Stand where a run stood that `arrays` and `progress` are of."""

        def part(name: str) -> dict[str, NDArray[Any]]:
            return {key.removeprefix(f"{name}."): v for key, v in arrays.items() if key.startswith(f"{name}.")}

        self.model.load_weights([(name, mx.array(value)) for name, value in part("adapter").items()], strict=False)
        self._stepper.restore(part("optimizer"))
        self.best, self.progress = part("best"), progress
        set_random_key(arrays["random"])


def evaluate(model: Any, examples: Sequence[Example], config: TrainConfig, group: Group = ALONE) -> float:
    """Mean cross-entropy over all supervised tokens of the examples, in nats."""
    model.eval()
    total, share = 0.0, group.share(sorted(examples, key=lambda e: len(e.tokens)))
    for batch in by_length(share, config.batch_size, config.batch_tokens):
        if batch.targets.size:
            total += float(np.array(batch_loss(model, batch))) * batch.targets.size
    return group.sum(total) / max(_learned(examples), 1)


def _learned(examples: Sequence[Example]) -> int:
    """Their supervised tokens; the first of a row is never predicted."""
    return sum(sum(example.mask[1:]) for example in examples)


def peak_mb() -> float:
    """Most memory so far, in 10^6 bytes; what a GPU holds is not in every system's count of the process."""
    return round(max(peak_rss_mb(), mx.get_peak_memory() / 1e6), 1)


def peak_rss_mb() -> float:
    """Most memory that this process has held, in 10^6 bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss may begin with what the parent held when it started this process
        kib = next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")), "0")
        return int(kib) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6
