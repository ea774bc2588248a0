"""What a fine-tuning run would be, before it starts: what the data is, what the settings come to, whether it fits."""

from __future__ import annotations

from dataclasses import dataclass

from localllm.errors import LocalLLMError
from localllm.store.registry import Registry
from localllm.tasks.data_report import CheckRequest, DataReport, check_data
from localllm.tasks.memory import Fit, check_fit, residence_here, settings_of
from localllm.tasks.preparing import FinetuneRequest, prepare, steps_of
from localllm.tune.config import TrainConfig


@dataclass(frozen=True)
class Preview:
    """What is known without loading a model's weights."""

    report: DataReport
    config: TrainConfig | None = None
    """The settings with their defaults filled in; None where `problem` keeps the run from starting."""
    rows: int = 0
    held_out: int = 0
    steps: int = 0
    fit: Fit | None = None
    problem: LocalLLMError | None = None


def preview(registry: Registry, request: FinetuneRequest) -> Preview:
    """Raises DataError for a file that cannot be read at all, ModelError, UsageError."""
    asked = CheckRequest(request.data, request.model, request.valid, request.max_length, request.train_on)
    report = check_data(registry, asked)
    try:
        prepared = prepare(registry, request)
        settings = settings_of(prepared.config, prepared.train, residence_here(prepared.header), request.other)
        lengths = [len(example.tokens) for example in prepared.train]
        weights = prepared.mlx.parameters if prepared.mlx else None
        fit = check_fit(prepared.header, settings, lengths, folder=weights)
    except LocalLLMError as error:
        return Preview(report, problem=error)
    rows, held_out = len(prepared.train), len(prepared.held_out)
    return Preview(report, prepared.config, rows, held_out, steps_of(prepared), fit)
