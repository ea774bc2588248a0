"""A fine-tuning run as the app holds it: where it stands, its curves, and its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from localllm.tui.work.job import Job, Work

if TYPE_CHECKING:
    from localllm.tasks.finetune import Done, Started
    from localllm.tasks.preparing import FinetuneRequest
    from localllm.tune.events import Evaluated, Ready, Resumed, Step, Trained, Warned

PHASES = ("reading the data", "loading the model", "training", "checking the adapter", "comparing before and after")


class TrainingJob(Job):
    """Folds the events of `tasks.finetune`."""

    def __init__(self, request: FinetuneRequest, work: Work) -> None:
        super().__init__(request.name, work)
        self.request = request
        self.phase = PHASES[0]
        self.train: list[tuple[float, float]] = []
        """(step, loss) of every step."""
        self.validation: list[tuple[float, float]] = []
        """(step, loss) of every validation."""
        self.best: tuple[int, float] | None = None
        """(epoch, validation loss) of the best so far."""
        self.step = self.steps = self.epoch = self.epochs = 0
        self.tokens_per_second = 0.0
        self.left: float | None = None
        """Seconds."""
        self.memory = 0
        """Bytes that it was estimated to take; 0 where nobody asked."""
        self.peak_mb = 0.0
        """Most memory that it has taken so far, in 10^6 bytes."""
        self.finishing = False
        """Whether it was asked to end with the best so far."""
        self.checked = (0, 0)
        """Rows compared with MLX, or read and answered before and after, and how many there are."""
        self.started: Started | None = None
        self.trained: Trained | None = None
        self.done: Done | None = None

    def take(self, event: Any) -> None:
        name = type(event).__name__.lower()
        if (fold := getattr(self, f"_{name}", None)) is not None:
            fold(event)

    def _started(self, event: Started) -> None:
        self.started, self.steps, self.epochs = event, event.steps, event.config.epochs
        self.phase = PHASES[1]

    def _warned(self, event: Warned) -> None:
        self.note(event.message)

    def _ready(self, event: Ready) -> None:
        self.phase = PHASES[2]
        self.note(f"Training {event.trainable:,} numbers on {event.device}.")

    def _resumed(self, event: Resumed) -> None:
        self.step, self.steps, self.epoch = event.step, event.steps, event.epoch
        self.note(f"Continuing at step {event.step} of {event.steps}.")

    def _step(self, event: Step) -> None:
        self.step, self.steps, self.epoch = event.step, event.steps, event.epoch
        self.tokens_per_second, self.left = event.tokens_per_second, event.eta
        self.peak_mb = max(self.peak_mb, event.peak_mb)
        self.train.append((event.step, event.loss))

    def _evaluated(self, event: Evaluated) -> None:
        self.validation.append((event.step, event.loss))
        if event.best:
            self.best = event.epoch, event.loss

    def _trained(self, event: Trained) -> None:
        self.trained, self.left, self.phase = event, None, PHASES[3]
        self.best = event.best_epoch, event.best_loss
        if event.early:
            self.note(f"Stopped early: nothing has been better than epoch {event.best_epoch}.")

    def _verifyprogress(self, event: Any) -> None:
        self.checked = event.done, event.total

    def _answerprogress(self, event: Any) -> None:
        self.phase, self.checked = PHASES[4], (event.done, event.total)

    def _evaluateprogress(self, event: Any) -> None:
        self.phase, self.checked = PHASES[4], (event.done, event.total)

    def _done(self, event: Done) -> None:
        self.done = event
