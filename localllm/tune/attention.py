"""Attention on a CPU, where MLX's softmax takes its exponentials one by one: a seventh of a layer's time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from localllm.tune.activations import exp

MOST_SCORES = 1 << 21
"""Scores of one layer at most, 8 MiB of float32: their exponentials take several times that while they are computed."""
_NAME = "scaled_dot_product_attention"


def vectorize_attention(model: Any) -> None:
    """Have the attention of a model's classes go through `attention` below where it can.

    mlx-lm's classes call a function of their module, so it is exchanged there, once for all models of these classes.
    """
    kinds = {kind for layer in model.layers for kind in type(layer.self_attn).__mro__}
    for module in {sys.modules[kind.__module__] for kind in kinds}:
        usual = getattr(module, _NAME, None)
        if usual is not None and not hasattr(usual, "usual"):
            setattr(module, _NAME, _short(usual))


def _short(usual: Callable[..., mx.array]) -> Callable[..., mx.array]:
    def attend(
        queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any, sinks: Any = None
    ) -> mx.array:
        rows, heads, length, _ = queries.shape
        few = rows * heads * length * keys.shape[2] <= MOST_SCORES
        if cache is None and sinks is None and few and queries.dtype == mx.float32:
            return attention(queries, keys, values, scale, mask)
        return usual(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)

    attend.usual = usual  # type: ignore[attr-defined]
    return attend


def attention(queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Any) -> mx.array:
    """softmax(Q K^T scale) V (Vaswani et al. 2017): (rows, heads, length, d) with as many keys or fewer heads of them.

    `mask` is "causal", booleans that say what is seen, numbers to be added, or None.
    """
    rows, heads, length, width = queries.shape
    groups, seen = keys.shape[1], keys.shape[2]
    together = (scale * queries).reshape(rows, groups, -1, width)  # the heads that share keys are one product
    scores = (together @ keys.swapaxes(-1, -2)).reshape(rows, heads, length, seen)
    if isinstance(mask, str):
        mask = mx.arange(seen - length, seen)[:, None] >= mx.arange(seen)
    if mask is not None:
        lowest = mx.finfo(scores.dtype).min
        scores = mx.where(mask, scores, lowest) if mask.dtype == mx.bool_ else scores + mask
    shares = softmax(scores).reshape(rows, groups, -1, seen)
    return (shares @ values).reshape(rows, heads, length, values.shape[-1])


def softmax(x: mx.array) -> mx.array:
    """Along the last axis, of float32."""
    return cast(mx.array, _softmax(x))


@mx.custom_function
def _softmax(x: mx.array) -> mx.array:
    powers = exp(x - mx.max(x, axis=-1, keepdims=True))
    return powers / mx.sum(powers, axis=-1, keepdims=True)


@_softmax.vjp
def _softmax_vjp(_x: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    weighted = cotangent * output
    return weighted - output * mx.sum(weighted, axis=-1, keepdims=True)
