"""LoRA on the matrices of a frozen model: y = W x + alpha / rank * (x A) B (Hu et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.nn.layers.dropout import Dropout
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx.utils import tree_flatten

from localllm.errors import AdapterMismatchError
from localllm.weights.adapter import Adapter, from_tensors, matrix_shape
from localllm.weights.safetensors import Matrix


class LowRank(Module):
    """A frozen module and the low-rank change of its matrix."""

    def __init__(self, linear: Module, a: mx.array, b: mx.array, scale: float, dropout: float = 0.0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.linear = linear
        self.linear.freeze()
        self.scale = scale
        self.dropout = Dropout(dropout)
        self.lora_a, self.lora_b = a, b

    def _added(self, y: mx.array, z: mx.array) -> mx.array:
        return y if self.scale == 0.0 else y + (self.scale * z).astype(y.dtype)


class LoRALinear(LowRank):
    """For a linear layer: A (in, rank), B (rank, out)."""

    def __call__(self, x: mx.array) -> mx.array:
        y, z = self.linear(x), self.dropout(x) @ self.lora_a
        if y.dtype == z.dtype and self.scale != 0.0:  # scaled while it is narrow, and added by the product itself
            return mx.addmm(y, self.scale * z, self.lora_b)
        return self._added(y, z @ self.lora_b)


class LoRAExperts(LowRank):
    """The same for a stack of experts: A (experts, rank, in), B (experts, out, rank)."""

    def __call__(self, x: mx.array, indices: mx.array, sorted_indices: bool = False) -> mx.array:
        z: mx.array = self.dropout(x)
        for matrix in (self.lora_a, self.lora_b):
            z = mx.gather_mm(z, matrix.swapaxes(-1, -2), rhs_indices=indices, sorted_indices=sorted_indices)
        return self._added(self.linear(x, indices, sorted_indices=sorted_indices), z)


class LoRAEmbedding(LowRank):
    """The same for an embedding, which may be the output too: A (vocabulary, rank), B (rank, width)."""

    def __call__(self, x: mx.array) -> mx.array:
        return self._added(self.linear(x), self.dropout(self.lora_a[x] @ self.lora_b))

    def as_linear(self, x: mx.array) -> mx.array:
        return self._added(self.linear.as_linear(x), (self.dropout(x) @ self.lora_b.T) @ self.lora_a.T)


def attach(
    model: Any,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    seed: int = 0,
    targets: Collection[str] = (),
    last: int | None = None,
) -> int:
    """Put LoRA on linear layers of the blocks; only A and B stay trainable. Returns how many numbers they are.

    `targets` are paths within a block ("self_attn.q_proj"); without them it is every linear layer. With `last` only
    the last so many blocks are adapted.
    """
    mx.random.seed(seed)
    model.freeze()
    first = 0 if last is None else max(0, len(model.layers) - last)
    for number, layer in enumerate(model.layers):
        if number < first:
            continue
        linears = [(path, m) for path, m in layer.named_modules() if isinstance(m, Linear | QuantizedLinear)]
        for path, module in sorted(linears, key=lambda item: item[0]):  # so that a seed always gives the same numbers
            if targets and path not in targets:
                continue
            rows, columns = _shape(module)
            bound = 1 / math.sqrt(columns)
            a = mx.random.uniform(-bound, bound, (columns, rank))
            b = mx.zeros((rank, rows))  # no change before the first step
            _put(model, f"model.layers.{number}.{path}", LoRALinear(module, a, b, alpha / rank, dropout))
    mx.eval(model.trainable_parameters())
    return sum(value.size for value in _trainable(model).values())


def attach_adapter(model: Any, adapter: Adapter) -> int:
    """Put an adapter on the very matrices that it is for. Returns how many numbers it has.

    Raises AdapterMismatchError naming a matrix that the model does not have.
    """
    model.freeze()
    modules = dict(model.named_modules())
    for path, (a, b) in adapter.layers.items():
        if (module := modules.get(path)) is None:
            raise AdapterMismatchError(f"The adapter changes {path}, which the model does not have.")
        if isinstance(module, Embedding | QuantizedEmbedding):
            kind: type[LowRank] = LoRAEmbedding
        else:
            kind = LoRALinear if isinstance(module, Linear | QuantizedLinear) else LoRAExperts
        _put(model, path, kind(module, mx.array(a), mx.array(b), adapter.scale, adapter.dropout))
    mx.eval(model.trainable_parameters())
    return sum(value.size for value in _trainable(model).values())


def check_adapter(model: Any, adapter: Adapter) -> None:
    """Raises AdapterMismatchError naming the first matrix that the model does not have, or not in that shape."""
    modules = dict(model.named_modules())
    for path, (a, b) in adapter.layers.items():
        module, wanted = modules.get(path), matrix_shape(path, a, b)
        if module is None:
            raise AdapterMismatchError(f"The adapter changes {path}, which the model does not have.")
        found = _matrix_shape(module.linear if isinstance(module, LowRank) else module)
        if found != wanted:
            raise AdapterMismatchError(f"The adapter's {path} is for a matrix of {wanted}; the model's has {found}.")


def detach(model: Any) -> None:
    """Take every adapter off, so that the model is as it was before."""
    for path, module in [(path, m) for path, m in model.named_modules() if isinstance(m, LowRank)]:
        _put(model, path, module.linear)


def tensors(model: Any) -> dict[str, Matrix]:
    """A copy of the trainable numbers as they stand in the model, float32, by their path."""
    return {name: np.array(value, np.float32) for name, value in _trainable(model).items()}


def extract(model: Any, rank: int, alpha: float, dropout: float = 0.0) -> Adapter:
    """The adapter as it stands in the model."""
    return from_tensors(tensors(model), rank, alpha, dropout)


@contextmanager
def detached(model: Any) -> Iterator[None]:
    """Within this, the model answers as the base does."""
    modules = [m for _, m in model.named_modules() if isinstance(m, LowRank)]
    scales = [m.scale for m in modules]
    try:
        for module in modules:
            module.scale = 0.0
        yield
    finally:
        for module, scale in zip(modules, scales, strict=True):
            module.scale = scale


def _put(model: Any, path: str, module: Module) -> None:
    """Replace the module at a path ("model.layers.0.self_attn.q_proj")."""
    *parents, name = path.split(".")
    node = model
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    setattr(node, name, module)


def _trainable(model: Any) -> dict[str, mx.array]:
    flat: list[tuple[str, mx.array]] = tree_flatten(model.trainable_parameters())  # type: ignore[assignment]
    return dict(flat)


def _shape(linear: Module) -> tuple[int, int]:
    """(out, in) of a plain or quantized linear layer."""
    rows, columns = _matrix_shape(linear)
    return rows, columns


def _matrix_shape(module: Module) -> tuple[int, ...]:
    """Of the matrix of any module that can be adapted: (out, in), (experts, out, in) or (vocabulary, width)."""
    *rows, columns = module.weight.shape if "weight" in module else (0,)
    return (*rows, columns * 32 // module.bits if "scales" in module else columns)
