"""What has to be the same for a run to go on, and what to say of what is not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np

from localllm.tune.checkpoint import FORMAT
from localllm.tune.config import TrainConfig
from localllm.types import Example

_NAMES = {
    "base": "the model's content hash",
    "rows": "the number of training rows",
    "train": "the content of the training rows",
    "held_out": "the content of the validation rows",
    "mlx_folder": "the content of the folder of --mlx",
    "clip_norm": "--clip",
    "processes": "the number of processes",
    "mlx": "the version of MLX",
    "format": "the format of checkpoints",
}


def fingerprint(
    base_sha256: str,
    other: str,
    config: TrainConfig,
    train: Sequence[Example],
    held_out: Sequence[Example],
    processes: int = 1,
) -> dict[str, Any]:
    """Everything that decides what a run makes, as JSON values by name."""
    settings = asdict(config) | {"targets": list(config.targets), "other": other}
    data = {"base": base_sha256, "rows": len(train), "train": _digest(train), "held_out": _digest(held_out)}
    return {**data, **settings, "processes": processes, "mlx": version("mlx"), "format": FORMAT}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """ "--learning-rate was 0.0002, now 0.0001", one for each thing that is not the same."""
    before, now = {"processes": 1, **before}, {"processes": 1, **now}  # runs of one did not always say so
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if "rows" in changed:
        changed.remove("train")
    return [f"{_name(key)} was {_short(before.get(key))}, now {_short(now.get(key))}" for key in changed]


def _name(key: str) -> str:
    return _NAMES.get(key, f"--{key.replace('_', '-')}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ",".join(map(str, value)) or "the usual ones"
    return "not set" if value is None else str(value)[:12]


def _digest(examples: Sequence[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(np.array([len(example.tokens), *example.tokens], np.int32).tobytes())
        digest.update(np.array(example.mask, bool).tobytes())
    return digest.hexdigest()
