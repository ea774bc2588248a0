"""LoRA adapters as values, and our folder of one: mlx-lm's own layout, so that its tools can read it too.

adapters.safetensors    model.layers.N.<module>.lora_a (in, rank) and .lora_b (rank, out), float32
adapter_config.json     rank, scale = alpha / rank, dropout, keys of the adapted modules
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import AdapterError

WEIGHTS, CONFIG, GGUF_NAME = "adapters.safetensors", "adapter_config.json", "adapter.gguf"
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Adapter:
    """A low-rank change of some linear layers: y += alpha / rank * x A B."""

    rank: int
    alpha: float
    layers: Mapping[str, tuple[Matrix, Matrix]]
    """Path of each adapted module in MLX's model -> A (in, rank) and B (rank, out)."""
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        """What the product is multiplied with."""
        return self.alpha / self.rank

    def tensors(self) -> dict[str, Matrix]:
        """Flat names, as mlx-lm's adapters.safetensors has them."""
        flat = {f"{path}.lora_a": a for path, (a, _) in self.layers.items()}
        return flat | {f"{path}.lora_b": b for path, (_, b) in self.layers.items()}


def from_tensors(tensors: Mapping[str, Matrix], rank: int, alpha: float, dropout: float = 0.0) -> Adapter:
    """An adapter from flat names. Raises AdapterError for a name or shape that does not belong."""
    paths = [name.removesuffix(".lora_a") for name in tensors if name.endswith(".lora_a")]
    if not paths or len(tensors) != 2 * len(paths):
        raise AdapterError("The adapter's tensors are not pairs of lora_a and lora_b.")
    layers = {}
    for path in paths:
        a, b = tensors[f"{path}.lora_a"], tensors.get(f"{path}.lora_b")
        if b is None or a.ndim != 2 or b.ndim != 2 or a.shape[1] != rank or b.shape[0] != rank:
            shapes = f"{a.shape} and {None if b is None else b.shape}"
            raise AdapterError(f"The adapter's {path} has the shapes {shapes}, which do not fit rank {rank}.")
        layers[path] = (a, b)
    return Adapter(rank, alpha, layers, dropout)


def write_folder(folder: Path, adapter: Adapter) -> None:
    """Write adapters.safetensors and adapter_config.json into an existing folder, each renamed into place."""
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(value) for name, value in adapter.tensors().items()}
    part = folder / f".{WEIGHTS}.part"
    save_file(tensors, part)
    part.replace(folder / WEIGHTS)
    part = folder / f".{CONFIG}.part"
    part.write_text(json.dumps(_config(adapter), indent=2) + "\n", "utf-8")
    part.replace(folder / CONFIG)


def read_folder(folder: Path) -> Adapter:
    """Read a folder that `write_folder` wrote. Raises AdapterError when a file is missing or does not fit."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text("utf-8"))
        parameters = config["lora_parameters"]
        rank, scale = int(parameters["rank"]), float(parameters["scale"])
        tensors = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise AdapterError(f"{folder} does not hold an adapter made by localllm: {error}.") from error
    floats = {name: value.astype(np.float32) for name, value in tensors.items()}
    return from_tensors(floats, rank, scale * rank, float(parameters.get("dropout", 0.0)))


def _config(adapter: Adapter) -> dict[str, Any]:
    modules = [path.split(".", 3) for path in adapter.layers]  # model . layers . N . <module>
    return {
        "fine_tune_type": "lora",
        "num_layers": len({parts[2] for parts in modules}),
        "lora_parameters": {
            "rank": adapter.rank,
            "scale": adapter.scale,
            "dropout": adapter.dropout,
            "keys": sorted({parts[3] for parts in modules}),
        },
    }
