"""Draws a fine-tuning run on standard error: a progress bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from localllm.cli.output import clock, say
from localllm.sanitize import sanitize_line

if TYPE_CHECKING:
    from rich.progress import Progress

_LINE_SECONDS = 10.0


class TrainingView:
    """Takes the events of `tasks.finetune`; a context manager, so that the bar is taken down whatever happens."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._progress: Progress | None = None
        self._task: Any = None
        self._last_line = 0.0

    def __enter__(self) -> TrainingView:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._take_down()

    def draw(self, event: Any) -> None:
        if draw := getattr(self, f"_{type(event).__name__.lower()}", None):
            draw(event)

    def _warned(self, event: Any) -> None:
        self._take_down()
        say(f"localllm: warning: {event.message}")

    def _started(self, event: Any) -> None:
        c = event.config
        self._say(
            f"{event.rows} rows to learn, {event.held_out} held out ({event.format}); {event.tokens} tokens, "
            f"{event.supervised} of them learned; longest row {event.longest} tokens."
        )
        several = f" times {c.accumulate}" if c.accumulate > 1 else ""
        self._say(
            f"{event.model}: {c.epochs} epochs of {c.batch_size} rows{several} a step, {event.steps} steps, "
            f"rank {c.rank}, alpha {c.alpha:g}, learning rate {c.learning_rate:g}."
        )

    def _ready(self, event: Any) -> None:
        blas = f" with {event.blas}" if event.device == "cpu" else ""
        self._say(f"Training {event.trainable:,} numbers on {event.device}{blas}.")

    def _resumed(self, event: Any) -> None:
        self._say(f"Continuing at step {event.step} of {event.steps}.")

    def _step(self, event: Any) -> None:
        if self._quiet:
            return
        text = f"loss {event.loss:.3f}  {event.tokens_per_second:.0f} tokens/s"
        if sys.stderr.isatty():
            self._bar(event.steps).update(self._task, completed=event.step, text=text, left=clock(event.eta))
        elif time.monotonic() - self._last_line > _LINE_SECONDS:
            self._last_line = time.monotonic()
            say(f"step {event.step} of {event.steps}  {text}  {clock(event.eta)} left")

    def _evaluated(self, event: Any) -> None:
        name = "before training" if event.epoch == 0 else f"epoch {event.epoch}"
        self._say(f"{name}: validation loss {event.loss:.4f}{' (best so far)' if event.best and event.epoch else ''}")

    def _trained(self, event: Any) -> None:
        self._take_down()
        if event.early:
            self._say(f"Stopped early: nothing has been better than epoch {event.best_epoch}.")
        self._say("Checking the adapter in llama.cpp against MLX.")

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        if self._progress is not None:
            self._progress.console.print(sanitize_line(text), highlight=False, markup=False)
        else:
            say(text)

    def _bar(self, steps: int) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = ("{task.completed}/{task.total}", "{task.fields[text]}", "{task.fields[left]} left")
            self._progress = Progress(
                BarColumn(), *(TextColumn(c) for c in columns), console=Console(stderr=True), transient=True
            )
            self._task = self._progress.add_task("", total=steps, text="", left="?")
            self._progress.start()
        return self._progress

    def _take_down(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
