"""LoRA on the linear layers of a frozen model: y = W x + alpha / rank * (x A) B (Hu et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.nn.layers.dropout import Dropout
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedLinear
from mlx.utils import tree_flatten, tree_unflatten

from localllm.weights.adapter import Adapter, from_tensors


class LoRALinear(Module):
    """A frozen linear layer and the low-rank change that is trained."""

    def __init__(self, linear: Module, rank: int, scale: float, dropout: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        rows, columns = _shape(linear)
        self.linear = linear
        self.scale = scale
        self.dropout = Dropout(dropout)
        bound = 1 / math.sqrt(columns)
        self.lora_a = mx.random.uniform(-bound, bound, (columns, rank))
        self.lora_b = mx.zeros((rank, rows))  # no change before the first step

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.linear(x)
        if self.scale == 0.0:
            return y
        z: mx.array = (self.dropout(x) @ self.lora_a) @ self.lora_b
        return y + (self.scale * z).astype(y.dtype)


def attach(model: Any, rank: int, alpha: float, dropout: float = 0.0, seed: int = 0) -> int:
    """Put LoRA on every linear layer of the blocks; only A and B stay trainable. Returns how many numbers they are."""
    mx.random.seed(seed)
    model.freeze()
    for layer in model.layers:
        linears = [(path, m) for path, m in layer.named_modules() if isinstance(m, Linear | QuantizedLinear)]
        linears.sort(key=lambda item: item[0])  # so that the seed decides the same numbers everywhere
        added = [(path, LoRALinear(module, rank, alpha / rank, dropout)) for path, module in linears]
        for _, module in added:
            module.linear.freeze()
        layer.update_modules(tree_unflatten(added))
    mx.eval(model.trainable_parameters())
    return sum(value.size for value in _trainable(model).values())


def extract(model: Any, rank: int, alpha: float, dropout: float = 0.0) -> Adapter:
    """The adapter as it stands in the model."""
    tensors = {name: np.array(value, np.float32) for name, value in _trainable(model).items()}
    return from_tensors(tensors, rank, alpha, dropout)


def insert(model: Any, adapter: Adapter) -> None:
    """Put an adapter's numbers into a model that `attach` prepared with the same rank and alpha."""
    model.load_weights([(name, mx.array(value)) for name, value in adapter.tensors().items()], strict=False)
    mx.eval(model.trainable_parameters())


@contextmanager
def detached(model: Any) -> Iterator[None]:
    """Within this, the model answers as the base does."""
    modules = [m for _, m in model.named_modules() if isinstance(m, LoRALinear)]
    scales = [m.scale for m in modules]
    try:
        for module in modules:
            module.scale = 0.0
        yield
    finally:
        for module, scale in zip(modules, scales, strict=True):
            module.scale = scale


def _trainable(model: Any) -> dict[str, mx.array]:
    flat: list[tuple[str, mx.array]] = tree_flatten(model.trainable_parameters())  # type: ignore[assignment]
    return dict(flat)


def _shape(linear: Module) -> tuple[int, int]:
    """(out, in) of a plain or quantized linear layer."""
    rows, columns = linear.weight.shape
    return rows, columns * 32 // linear.bits if isinstance(linear, QuantizedLinear) else columns
