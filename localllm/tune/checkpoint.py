"""Keeping the best adapter of a run: each file is written beside its place and renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localllm.tune.config import TrainConfig
from localllm.tune.lora import extract
from localllm.weights.adapter import write_folder


class Keeper:
    """Saves the adapter of a model into a folder whenever it is called."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._folder, self._config = folder, config

    def __call__(self, model: Any) -> None:
        config = self._config
        write_folder(self._folder, extract(model, config.rank, config.alpha, config.dropout))
