"""Frozen weights that are made float32 only while they are multiplied, where all of them at once do not fit the memory.

Products are float32, which on a CPU is what is fast; forwards and backwards each make a matrix, or a piece of a large
one, anew and let it go. That costs about a second product's worth of dequantization a step, and saves three quarters of
the memory of the weights.
"""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear

PIECE = 1 << 20
"""Weights that are float32 at once: 64 MiB of them."""


class StreamedLinear(QuantizedLinear):
    """A quantized linear layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return _biased(self, product(x, self))


class StreamedHalf(Linear):
    """A linear layer with 16-bit weights."""

    def __call__(self, x: mx.array) -> mx.array:
        return _biased(self, product(x, self))


class StreamedEmbedding(QuantizedEmbedding):
    """A quantized embedding, which may be the output too."""

    def as_linear(self, x: mx.array) -> mx.array:
        return product(x, self)


class StreamedHalfEmbedding(Embedding):
    """An embedding of 16-bit numbers."""

    def __call__(self, x: mx.array) -> mx.array:
        return self.weight[x].astype(mx.float32)

    def as_linear(self, x: mx.array) -> mx.array:
        return product(x, self)


_STREAMED: dict[type[Module], type[Module]] = {
    QuantizedLinear: StreamedLinear,
    Linear: StreamedHalf,
    QuantizedEmbedding: StreamedEmbedding,
    Embedding: StreamedHalfEmbedding,
}


def stream(model: Any) -> None:
    """Have every matrix of a loaded model made float32 only when it is used."""
    for _, module in model.named_modules():
        if type(module) in _STREAMED and module.weight.dtype != mx.float32:
            module.__class__ = _STREAMED[type(module)]


def halved(weights: mx.array, kind: str) -> mx.array:
    """A matrix of a ggml type that is no affine group, in the 16 bits that it is held in; F32 and vectors stay."""
    if weights.ndim != 2 or kind == "F32":
        return weights
    return weights.astype(mx.bfloat16 if kind == "BF16" else mx.float16)


def product(x: mx.array, module: Any) -> mx.array:
    """x W^T for (…, in) and the module's W (out, in), with a gradient that does not hold W."""
    rows = module.weight.shape[0]
    step = max(1, PIECE // x.shape[-1])
    pieces = [_piece(x, module, slice(start, min(start + step, rows))) for start in range(0, rows, step)]
    return pieces[0] if len(pieces) == 1 else mx.concatenate(pieces, axis=-1)


def _piece(x: mx.array, module: Any, rows: slice) -> mx.array:
    @mx.custom_function
    def forward(inputs: mx.array) -> mx.array:
        return inputs @ _dense(module, rows, inputs).T

    @forward.vjp
    def backward(primals: mx.array, cotangent: mx.array, _output: mx.array) -> mx.array:
        return cotangent @ _dense(module, rows, cotangent)

    return cast(mx.array, forward(x))


def _dense(module: Any, rows: slice, after: mx.array) -> mx.array:
    """Some rows of the matrix as float32, made only when `after` is known: else all would be made at the start."""
    weight: mx.array = mx.depends([module.weight[rows]], [after])[0]
    if "scales" not in module:
        return weight.astype(mx.float32)
    return mx.dequantize(weight, module.scales[rows], module.biases[rows], module.group_size, module.bits)


def _biased(module: Any, y: mx.array) -> mx.array:
    return y + module.bias if "bias" in module else y
