"""LoRA adapters as values, and our folder of one: mlx-lm's own layout, so that its tools can read it too.

adapters.safetensors    <path>.lora_a and <path>.lora_b, float32, in mlx-lm's orientation (see Adapter)
adapter_config.json     rank, scale = alpha / rank, dropout, keys of the adapted modules
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localllm.errors import AdapterError
from localllm.weights.names import EMBEDDING
from localllm.weights.safetensors import Matrix, read_tensors

WEIGHTS, CONFIG, GGUF_NAME = "adapters.safetensors", "adapter_config.json", "adapter.gguf"
EVERY_LAYER = -1
"""num_layers as mlx-lm understands it: the adapter may be on any layer (tuner/utils.py)."""


@dataclass(frozen=True)
class Adapter:
    """A low-rank change of some matrices: every one does y += scale * (x A) B, with one scale = alpha / rank.

    A layer's own rank is A.shape[1]; it may be smaller than `rank`. Where a source has a scale for each layer, the
    difference is folded into B on the way in (`from_scaled`).
    """

    rank: int
    """The largest of all layers."""
    alpha: float
    layers: Mapping[str, tuple[Matrix, Matrix]]
    """Path of each adapted module in MLX's model -> A and B.

    linear      A (in, rank), B (rank, out)
    experts     A (experts, rank, in), B (experts, out, rank): "model.layers.N.mlp.switch_mlp.gate_proj"
    embedding   A (vocabulary, rank), B (rank, width): "model.embed_tokens"
    """
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        """What the product is multiplied with."""
        return self.alpha / self.rank

    def tensors(self) -> dict[str, Matrix]:
        """Flat names, as mlx-lm's adapters.safetensors has them."""
        flat = {f"{path}.lora_a": a for path, (a, _) in self.layers.items()}
        return flat | {f"{path}.lora_b": b for path, (_, b) in self.layers.items()}


def matrix_shape(path: str, a: Matrix, b: Matrix) -> tuple[int, ...]:
    """Shape of the matrix that such a pair changes: (out, in), (experts, out, in) or (vocabulary, width)."""
    if a.ndim == 3:
        return (a.shape[0], b.shape[1], a.shape[2])
    return (a.shape[0], b.shape[1]) if path == EMBEDDING else (b.shape[1], a.shape[0])


def from_tensors(tensors: Mapping[str, Matrix], rank: int, alpha: float, dropout: float = 0.0) -> Adapter:
    """An adapter from flat names. Raises AdapterError for a name or shape that does not belong."""
    pairs = paired(tensors)
    for path, (a, b) in pairs.items():
        if not _is_pair(a, b) or a.shape[1] > rank:
            problem = f"has the shapes {a.shape} and {b.shape}, which do not fit rank {rank}"
            raise AdapterError(f"The adapter's {path} {problem}.")
    return Adapter(rank, alpha, pairs, dropout)


def from_scaled(layers: Mapping[str, tuple[Matrix, Matrix, float]], dropout: float = 0.0) -> Adapter:
    """An adapter from layers that each have a scale of their own.

    Where all have the same, it is the adapter's. Else they are taken for one alpha over the rank of each layer, as PEFT
    and llama.cpp have it: the commonest alpha becomes the adapter's, and what a layer's scale differs by goes into its
    B. Raises AdapterError for shapes that do not belong together, values that are not finite, or no layer at all.
    """
    for path, (a, b, scale) in layers.items():
        if not _is_pair(a, b) or not a.shape[1]:
            raise AdapterError(f"The adapter's {path} has the shapes {a.shape} and {b.shape}, which are no pair.")
        if not (np.isfinite(scale) and np.isfinite(a).all() and np.isfinite(b).all()):
            raise AdapterError(f"The adapter's {path} has values that are not finite.", "Its training has diverged.")
    if not layers:
        raise AdapterError("The adapter changes nothing: it holds no layers.")
    rank = max(a.shape[1] for a, _, _ in layers.values())
    alpha = _common_alpha([(scale, a.shape[1]) for a, _, scale in layers.values()], rank)
    folded = {path: (a, rescaled(b, scale * rank / alpha)) for path, (a, b, scale) in layers.items()}
    return Adapter(rank, alpha, folded, dropout)


def _common_alpha(scales: Sequence[tuple[float, int]], rank: int) -> float:
    """Of (scale, rank) for each layer; `rank` is the largest."""
    used = [(scale, own) for scale, own in scales if scale] or [(1.0, rank)]
    if len({scale for scale, _ in used}) == 1:
        return used[0][0] * rank
    alphas = Counter(float(f"{scale * own:.12g}") for scale, own in used)  # alpha / 3 * 3 is not always alpha
    return max(alphas, key=lambda alpha: (alphas[alpha], alpha))


def rescaled(b: Matrix, factor: float) -> Matrix:
    """B of another scale. PEFT and llama.cpp divide alpha by the rank of each layer, we by the largest: on the way out
    B is multiplied with the layer's rank over the largest."""
    return b if factor == 1.0 else np.multiply(b, np.float32(factor), dtype=np.float32)


def paired(tensors: Mapping[str, Matrix]) -> dict[str, tuple[Matrix, Matrix]]:
    """Path -> A and B, from flat names. Raises AdapterError, naming it, for a tensor without its other half."""
    pairs = {}
    for name in tensors:
        path, _, half = name.rpartition(".")
        if half not in ("lora_a", "lora_b"):
            raise AdapterError(f"The adapter holds {name}, which is not a LoRA matrix.")
        other = f"{path}.{'lora_b' if half == 'lora_a' else 'lora_a'}"
        if other not in tensors:
            raise AdapterError(f"The adapter holds {name} without {other}.")
        pairs[path] = (tensors[f"{path}.lora_a"], tensors[f"{path}.lora_b"])
    if not pairs:
        raise AdapterError("The adapter changes nothing: it holds no layers.")
    return pairs


def padded(adapter: Adapter) -> Adapter:
    """The same adapter with every layer at the full rank, by zeros: for programs that know one rank only."""

    def to_rank(value: Matrix, axis: int) -> Matrix:
        missing = adapter.rank - value.shape[axis]
        return np.pad(value, [(0, missing if i == axis else 0) for i in range(value.ndim)]) if missing else value

    layers = {path: (to_rank(a, 1), to_rank(b, 2 if b.ndim == 3 else 0)) for path, (a, b) in adapter.layers.items()}
    return Adapter(adapter.rank, adapter.alpha, layers, adapter.dropout)


def write_folder(folder: Path, adapter: Adapter) -> None:
    """Write adapters.safetensors and adapter_config.json into an existing folder, each renamed into place."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in adapter.tensors().items()}
    part = folder / f".{WEIGHTS}.part"
    part.write_bytes(save(tensors))
    part.replace(folder / WEIGHTS)
    part = folder / f".{CONFIG}.part"
    part.write_text(json.dumps(_config(adapter), indent=2) + "\n", "utf-8")
    part.replace(folder / CONFIG)


def read_folder(folder: Path) -> Adapter:
    """Read a folder that `write_folder` wrote. Raises AdapterError when a file is missing or does not fit."""
    path = folder / CONFIG
    parameters = read_config(path).get("lora_parameters")
    if not isinstance(parameters, dict):
        raise AdapterError(f"{path} does not say the rank and scale of an adapter.")
    given = {"rank": None, "scale": None, "dropout": 0.0, **parameters}
    rank, scale, dropout = (json_number(path, key, given[key]) for key in ("rank", "scale", "dropout"))
    return from_tensors(read_tensors(folder / WEIGHTS), int(rank), scale * int(rank), dropout)


def module_keys(paths: Iterable[str]) -> list[str]:
    """The keys of mlx-lm's configuration: a module's path within its layer, or from the top where it is in none."""
    return sorted({path.split(".", 3)[3] if path.startswith("model.layers.") else path for path in paths})


def read_config(path: Path) -> dict[str, Any]:
    """A configuration file. Raises AdapterError, in one sentence, unless it is a JSON object."""
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} is not JSON ({error}).") from error
    if not isinstance(config, dict):
        raise AdapterError(f"{path} is not a JSON object.")
    return config


def text_module(name: str) -> str:
    """A module's path without the part for the text model within one that also sees, as programs have it there."""
    for prefix in ("model.language_model.", "language_model.model."):
        if name.startswith(prefix):
            return f"model.{name.removeprefix(prefix)}"
    return name.removeprefix("language_model.")


def json_number(path: Path, key: str, value: object) -> float:
    """A finite number of a configuration file. Raises AdapterError naming the file, its key and what is there."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer beyond every float
        number = math.nan
    if not math.isfinite(number):
        raise AdapterError(f"{path} has {str(value)[:40]} as its {key}, which is not a finite number.")
    return number


def _config(adapter: Adapter) -> dict[str, Any]:
    return {
        "fine_tune_type": "lora",
        "num_layers": EVERY_LAYER,
        "lora_parameters": {
            "rank": adapter.rank,
            "scale": adapter.scale,
            "dropout": adapter.dropout,
            "keys": module_keys(adapter.layers),
        },
    }


def _is_pair(a: Matrix, b: Matrix) -> bool:
    """Whether A and B have one rank, and the same experts where they have any."""
    if (a.ndim, b.ndim) == (3, 3):
        return (a.shape[0], a.shape[1]) == (b.shape[0], b.shape[2])
    return (a.ndim, b.ndim) == (2, 2) and bool(a.shape[1] == b.shape[0])
