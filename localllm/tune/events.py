"""What the training child says: one JSON object a line, {"event": name, ...fields}."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import ClassVar


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""

    event: ClassVar[str] = "ready"
    device: str
    blas: str
    residence: str
    """How the frozen weights are held: "float32" or "quantized"."""
    trainable: int
    """Numbers that are trained."""
    steps: int
    load_seconds: float
    version: str
    """Of MLX."""


@dataclass(frozen=True)
class Resumed:
    """The run goes on from a checkpoint."""

    event: ClassVar[str] = "resumed"
    step: int
    """Steps that are done."""
    steps: int
    epoch: int


@dataclass(frozen=True)
class Step:
    """One step of the optimizer."""

    event: ClassVar[str] = "step"
    step: int
    steps: int
    epoch: int
    """From 1."""
    loss: float
    """Mean cross-entropy over all supervised tokens of the step, in nats."""
    learning_rate: float
    tokens: int
    """Tokens trained on so far, without padding."""
    tokens_per_second: float
    eta: float
    """Seconds left."""
    rows: list[int] = field(default_factory=list)
    """Which training rows it saw, in their order; the first is 0."""
    peak_mb: float = 0.0
    """Most memory so far, in 10^6 bytes: of the process, or of MLX's arrays where a GPU holds them."""


@dataclass(frozen=True)
class Evaluated:
    """Validation loss after an epoch; epoch 0 is before training."""

    event: ClassVar[str] = "evaluated"
    epoch: int
    step: int
    loss: float
    best: bool
    """Whether it is the lowest so far."""


@dataclass(frozen=True)
class Warned:
    """Something to know that does not stop the run."""

    event: ClassVar[str] = "warned"
    message: str


@dataclass(frozen=True)
class Trained:
    """The run is over and the best adapter is written."""

    event: ClassVar[str] = "trained"
    steps: int
    best_epoch: int
    best_loss: float
    first_loss: float
    """Validation loss of the base."""
    diverged: bool
    """It stopped because the loss was no longer a number, or had grown out of all bounds."""
    tokens: int
    seconds: float
    peak_rss_mb: float
    early: bool = False
    """It stopped because the validation loss had not fallen for as many times as `patience` says."""


@dataclass(frozen=True)
class Failed:
    """The run cannot go on."""

    event: ClassVar[str] = "failed"
    message: str
    hint: str


TuneEvent = Ready | Resumed | Step | Evaluated | Warned | Trained | Failed
_BY_NAME: dict[str, type[TuneEvent]] = {
    c.event: c for c in (Ready, Resumed, Step, Evaluated, Warned, Trained, Failed)
}  # fmt: skip


def encode(event: TuneEvent) -> str:
    """One line of JSON, without the line end."""
    return json.dumps({"event": event.event, **asdict(event)})


def decode(line: str) -> TuneEvent:
    """The event of a line. Raises ValueError, KeyError or TypeError for anything else."""
    fields = json.loads(line)
    return _BY_NAME[fields.pop("event")](**fields)
