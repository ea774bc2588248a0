"""Adapter folders of mlx-lm, in and out.

Layout (mlx_lm/lora.py writes it, tuner/utils.py load_adapters reads it):

    adapters.safetensors     the adapter; NNNNNNN_adapters.safetensors beside it are checkpoints, and not read
    adapter_config.json      fine_tune_type (missing in old ones: lora), lora_parameters: rank, scale, dropout, keys

mlx-lm 0.32 multiplies with `scale` alone, whatever `alpha` says, and so do we. Its first versions multiplied with
scale * alpha / rank; which version trained an adapter is not written in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localllm.errors import AdapterError
from localllm.weights.adapter import (
    CONFIG,
    WEIGHTS,
    Adapter,
    from_scaled,
    json_number,
    padded,
    paired,
    read_config,
    text_module,
    write_folder,
)
from localllm.weights.safetensors import Matrix, read_tensors

DEFAULT_SCALE = 20.0
"""What mlx-lm trains with where nothing is said (mlx_lm/lora.py, CONFIG_DEFAULTS)."""
_REFUSED = {
    "dora": "a DoRA, which scales the weights themselves; llama.cpp has no such adapters",
    "full": "a full fine-tune, not an adapter",
}


def read(folder: Path) -> tuple[Adapter, list[str]]:
    """The adapter in a folder of mlx-lm, and what had to be assumed, in sentences.

    Raises AdapterError, in one sentence, for what is not a LoRA, is damaged, or is in the oldest layout (.npz). Whether
    it fits the base is for `weights.lora.check_fit` to say.
    """
    parameters = _parameters(folder)
    scale, notes = _scale(folder, parameters)
    layers = {text_module(name): (_stack(a, b), b, scale) for name, (a, b) in _pairs(folder).items()}
    return from_scaled(layers, _number(folder, parameters, "dropout", 0.0)), notes


def write(folder: Path, adapter: Adapter) -> None:
    """A folder for `mlx_lm.generate --adapter-path`. mlx-lm knows one rank, so all layers get the largest, by zeros."""
    write_folder(folder, padded(adapter))


def _parameters(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not (folder / WEIGHTS).is_file() and (folder / "adapters.npz").is_file():
        message = f"{folder} holds adapters.npz, a layout that does not say how strong the adapter is."
        raise AdapterError(message, "Train or save it again with a newer mlx-lm.")
    config = read_config(path)
    if (kind := config.get("fine_tune_type") or "lora") != "lora":
        raise AdapterError(f"{folder} is {_REFUSED.get(str(kind), f'no LoRA, but of the kind {kind!r}')}.")
    parameters = config.get("lora_parameters")
    if not isinstance(parameters, dict):
        raise AdapterError(f"{path} has no lora_parameters, so the adapter's strength is unknown.")
    return parameters


def _scale(folder: Path, parameters: dict[str, Any]) -> tuple[float, list[str]]:
    if "scale" in parameters:
        scale = _number(folder, parameters, "scale", 0.0)
        if "alpha" not in parameters:
            return scale, []
        return scale, [f"{CONFIG} has scale and alpha: scale {scale:g} counts, as in today's mlx-lm."]
    if "alpha" in parameters:
        rank = _number(folder, parameters, "rank", 0.0)
        if rank <= 0:
            raise AdapterError(f"{folder / CONFIG} has alpha without a rank to divide it by.")
        scale = _number(folder, parameters, "alpha", 0.0) / rank
        return scale, [f"{CONFIG} has no scale: alpha / rank = {scale:g} was taken."]
    return DEFAULT_SCALE, [f"{CONFIG} has neither scale nor alpha: mlx-lm's default of {DEFAULT_SCALE:g} was taken."]


def _number(folder: Path, parameters: dict[str, Any], key: str, default: float) -> float:
    return json_number(folder / CONFIG, key, parameters.get(key, default))


def _pairs(folder: Path) -> dict[str, tuple[Matrix, Matrix]]:
    tensors = read_tensors(folder / WEIGHTS)
    for name in tensors:
        if name.endswith(".m"):
            raise AdapterError(f"{folder} is {_REFUSED['dora']}.", f"It holds {name}.")
        if not name.endswith((".lora_a", ".lora_b")):
            raise AdapterError(f"{folder} is {_REFUSED['full']}.", f"It holds {name}.")
    return paired(tensors)


def _stack(a: Matrix, b: Matrix) -> Matrix:
    """A of a layer's experts: (experts, rank, in); older versions have one matrix (experts * rank, in)."""
    if a.ndim == 2 and b.ndim == 3 and a.shape[0] == b.shape[0] * b.shape[2]:
        return a.reshape(b.shape[0], b.shape[2], a.shape[1])
    return a
