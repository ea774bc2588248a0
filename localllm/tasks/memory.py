"""Will a training run fit this machine's memory, and if not, which settings would."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from localllm.errors import TrainingError
from localllm.store.machine import available_memory
from localllm.tasks.room import SPARE as SPARE  # of training as of answering
from localllm.tasks.room import usable
from localllm.tasks.settings import Settings
from localllm.tune.config import TrainConfig
from localllm.tune.device import residence
from localllm.types import Example
from localllm.weights.convert import Other
from localllm.weights.excerpt import float_size
from localllm.weights.fit import Footprint, Model, Residence, TrainingSettings, model_of, training
from localllm.weights.gguf import GGUFFile
from localllm.weights.mlx_parameters import Parameter

Chosen = TypeVar("Chosen", bound=Settings)
LEAST_RANK, LEAST_LENGTH = 4, 128
COPIES = {"adamw": 2, "lion": 1, "muon": 1, "adafactor": 0}
"""Numbers of each optimizer's state for each trained one."""


@dataclass(frozen=True)
class Fit:
    """The verdict on some settings, and settings that fit."""

    settings: TrainingSettings
    footprint: Footprint
    available: int
    """Bytes that may be used."""
    suggestion: TrainingSettings | None = None
    """Settings that fit, where those asked for do not; None where none were found."""
    too_long: int = 0
    """Rows that are longer than the suggested settings allow."""

    @property
    def fits(self) -> bool:
        return self.footprint.total <= self.available

    def changes(self) -> dict[str, int | bool]:
        """What the suggestion changes, by the names of the options of `localllm finetune`."""
        if self.suggestion is None:
            return {}
        names = {
            "rows": "batch_size", "accumulate": "accumulate", "grad_checkpoint": "grad_checkpoint", "rank": "rank",
            "length": "max_length",
        }  # fmt: skip
        pairs = ((option, getattr(self.settings, n), getattr(self.suggestion, n)) for n, option in names.items())
        return {option: new for option, old, new in pairs if new != old}

    def as_options(self) -> str:
        """The same as a person types it: "--batch-size 2 --accumulate 4"."""
        flags = ((name.replace("_", "-"), value) for name, value in self.changes().items())
        return " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in flags)


def check_fit(
    header: GGUFFile,
    settings: TrainingSettings,
    lengths: Sequence[int] = (),
    memory: int | None = None,
    folder: Mapping[str, Parameter] | None = None,
) -> Fit:
    """The verdict. `lengths` are those of all rows; `memory` is what is available, in bytes, if not the machine's;
    `folder` has the weights where they are not those of the file.

    Raises InvalidModelError or UnsupportedModelError for a model that cannot be fine-tuned.
    """
    model = model_of(header, folder)
    available = usable(available_memory() if memory is None else memory)
    footprint = training(model, settings)
    if footprint.total <= available:
        return Fit(settings, footprint, available)
    suggestion = _smaller(model, settings, available)
    too_long = sum(n > suggestion.length for n in lengths) if suggestion else 0
    return Fit(settings, footprint, available, suggestion, too_long)


def refusal(fit: Fit) -> TrainingError:
    """What to say of settings that do not fit."""
    need, have = fit.footprint.total / 1e9, fit.available / 1e9
    message = f"This would take about {need:.1f} GB of memory, and {have:.1f} GB may be used."
    if fit.suggestion is None:
        hint = "No smaller settings fit either: close other programs, or take a smaller model."
        return TrainingError(message, f"{hint} --force trains all the same.")
    rows = f" ({fit.too_long} rows are longer: see --too-long)" if fit.too_long else ""
    hint = f"This would fit: {fit.as_options()}{rows}. --auto takes it; --force trains all the same."
    return TrainingError(message, hint)


def shrunk(request: Chosen, fit: Fit) -> Chosen:
    """The request with the settings that fit. Raises TrainingError where there are none."""
    if fit.suggestion is None:
        raise refusal(fit)
    changes: dict[str, Any] = dict(fit.changes())
    return replace(request, **changes)


def settings_of(
    config: TrainConfig, examples: Sequence[Example], residence: Residence, other: Other = "16bit"
) -> TrainingSettings:
    """What a run over these examples needs: of the batch that weighs most by its tokens and their squares."""
    from localllm.data.batches import epoch

    batches = epoch(examples, config.batch_size, config.seed, 1, config.batch_tokens)
    shapes = [(len(rows), max(len(examples[i].tokens) for i in rows), rows) for rows in batches]
    rows, length, chosen = max(shapes, key=lambda s: (s[0] * s[1] * (s[1] + 1000), s[1]))
    learned = sum(sum(examples[i].mask) for i in chosen)
    return TrainingSettings(
        rows, length, learned / (rows * length), config.rank, config.targets, config.layers, config.dropout > 0,
        residence, other, COPIES[config.optimizer], config.accumulate, config.grad_checkpoint,
    )  # fmt: skip


def residence_here(header: GGUFFile) -> Residence:
    """How the training process will hold the weights, as far as can be told without loading MLX."""
    if sys.platform == "darwin":
        return "quantized"
    cuda = any(importlib.util.find_spec(f"mlx_cuda{version}") for version in ("", "_12", "_13"))
    return residence("cuda" if cuda else "cpu", float_size(header))


def _smaller(model: Model, settings: TrainingSettings, available: int) -> TrainingSettings | None:
    for candidate in _candidates(settings):
        if training(model, candidate).total <= available:
            return candidate
    return None


def _candidates(settings: TrainingSettings) -> Iterator[TrainingSettings]:
    """Ever smaller ones, what changes the result least first: shorter batches of the same step, layers computed twice,
    a lower rank, shorter rows."""
    while settings.rows > 1:
        rows = settings.rows // 2
        settings = replace(settings, rows=rows, accumulate=-(-settings.rows // rows) * settings.accumulate)
        yield settings
    settings = replace(settings, grad_checkpoint=True)
    yield settings
    while settings.rank > LEAST_RANK:
        settings = replace(settings, rank=max(LEAST_RANK, settings.rank // 2))
        yield settings
    while settings.length > LEAST_LENGTH:
        settings = replace(settings, length=max(LEAST_LENGTH, settings.length * 3 // 4))
        yield settings
