"""What a person chose of the training, checked, with defaults for the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from localllm.errors import UsageError
from localllm.tune.config import (
    Optimizer,
    Schedule,
    TrainConfig,
    default_batch_size,
    default_epochs,
    default_learning_rate,
)
from localllm.weights.architectures import architecture_of
from localllm.weights.gguf import GGUFFile

HIGHEST_RATE = 0.1
_POSITIVE = (
    "epochs", "max_steps", "batch_size", "batch_tokens", "accumulate", "learning_rate", "rank", "alpha", "max_length",
    "layers", "patience", "lora_plus", "save_every",
)  # fmt: skip
_NOT_NEGATIVE = ("weight_decay", "clip")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """None takes a default that fits the model and the number of rows; the words are those of TrainConfig."""

    epochs: int | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    batch_tokens: int | None = None
    accumulate: int | None = None
    learning_rate: float | None = None
    optimizer: Optimizer | None = None
    schedule: Schedule | None = None
    warmup: float | None = None
    weight_decay: float | None = None
    clip: float | None = None
    rank: int = 16
    alpha: float | None = None
    """Default: twice the rank."""
    dropout: float = 0.0
    rslora: bool = False
    lora_plus: float | None = None
    dora: bool = False
    """Refused, with the reason."""
    targets: str | None = None
    """Names with commas between them: "q_proj,v_proj"."""
    layers: int | None = None
    patience: int | None = None
    grad_checkpoint: bool = False
    max_length: int | None = None
    """Tokens of the longest row; default: the model's context, up to 2048."""
    seed: int = 0
    save_every: int | None = None
    """Steps between checkpoints; without it by the clock."""


def check(settings: Settings) -> None:
    """Raises UsageError naming the option that cannot be meant."""
    for name in (*_POSITIVE, *_NOT_NEGATIVE):
        value = getattr(settings, name)
        if value is not None and not (value > 0 or (value == 0 and name in _NOT_NEGATIVE)):
            least = "at least 0" if name in _NOT_NEGATIVE else "more than 0"
            raise UsageError(f"--{name.replace('_', '-')} must be {least}, not {value}.")
    if not 0 <= settings.dropout < 1:
        raise UsageError(f"--dropout must be at least 0 and less than 1, not {settings.dropout}.")
    if settings.warmup is not None and not 0 <= settings.warmup <= 1:
        raise UsageError(f"--warmup is a part of the run, from 0 to 1, not {settings.warmup}.")
    if settings.learning_rate is not None and settings.learning_rate > HIGHEST_RATE:
        raise UsageError(
            f"--learning-rate {settings.learning_rate:g} would destroy the adapter at once.",
            "Usual are 0.0001 to 0.001; without the option it is chosen by the model's width.",
        )
    if settings.dora:
        raise UsageError(
            "DoRA adapters cannot be used in llama.cpp: its LoRA files have no place for their magnitudes.",
            "Leave out --dora; --rslora with a higher --rank is the nearest to it.",
        )


def configured(settings: Settings, rows: int, width: int, header: GGUFFile) -> TrainConfig:
    """The settings of a run over so many rows. Raises UsageError for targets that the model does not have."""
    chosen = {
        "batch_tokens": settings.batch_tokens, "accumulate": settings.accumulate, "optimizer": settings.optimizer,
        "schedule": settings.schedule, "warmup": settings.warmup, "weight_decay": settings.weight_decay,
        "clip_norm": settings.clip, "lora_plus": settings.lora_plus, "layers": settings.layers,
        "patience": settings.patience, "max_steps": settings.max_steps,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    return TrainConfig(
        epochs=settings.epochs or default_epochs(rows),
        batch_size=settings.batch_size or default_batch_size(rows),
        learning_rate=settings.learning_rate or default_learning_rate(width, settings.optimizer or "adamw"),
        rank=settings.rank,
        alpha=settings.alpha or 2.0 * settings.rank,
        dropout=settings.dropout,
        seed=settings.seed,
        rslora=settings.rslora,
        targets=_targets(settings.targets, header),
        grad_checkpoint=settings.grad_checkpoint,
        **given,
    )


def _targets(said: str | None, header: GGUFFile) -> tuple[str, ...]:
    """Paths within a layer, of names as people write them: "q_proj" or "self_attn.q_proj"."""
    if said is None:
        return ()
    entry = architecture_of(header)
    known = entry.trained or entry.modules
    names = [name.strip() for name in said.split(",") if name.strip()]
    if unknown := [name for name in names if not _matching(name, known)]:
        raise UsageError(
            f"--targets: the model has no {', '.join(unknown)} that can be adapted.",
            f"It has {', '.join(path.rpartition('.')[2] for path in known)}.",
        )
    return tuple(path for path in known if any(path in _matching(name, known) for name in names))


def _matching(name: str, known: Iterable[str]) -> list[str]:
    return [path for path in known if path == name or path.endswith(f".{name}")]
