"""Where mlx-lm's classes compute something else than llama.cpp does, what llama.cpp does is put in.

Each class below takes the place of an mlx-lm class on the modules of one model: parameters keep their names.
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from localllm.weights.architectures import architecture_of
from localllm.weights.gguf import GGUFFile
from localllm.weights.rope import Rotary, rotary


class Rope(Module):
    """Rotary positions with the periods and the magnitude that llama.cpp uses."""

    def __init__(self, rotary: Rotary) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._periods = mx.array(rotary.periods)  # the underscore keeps it out of the parameters
        self._magnitude = rotary.magnitude

    def __call__(self, x: mx.array, offset: int = 0) -> mx.array:
        dims = 2 * self._periods.size
        if self._magnitude != 1.0:
            rotated = x[..., :dims] * self._magnitude
            x = rotated if dims == x.shape[-1] else mx.concatenate([rotated, x[..., dims:]], axis=-1)
        return mx.fast.rope(x, dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=self._periods)


def follow_llama_cpp(model: Any, file: GGUFFile, n_ctx: int) -> None:
    """Replace what differs in a model that was built from a file's configuration."""
    for layer, positions in zip(model.layers, rotary(file, n_ctx), strict=True):
        if type(layer.self_attn.rope).__name__ != "NoPE":  # SmolLM3's layers without positions
            layer.self_attn.rope = Rope(positions)
    if model.model_type == "gemma2":
        sliding = architecture_of(file).sliding
        assert sliding is not None
        for layer, slides in zip(model.layers, sliding.layers(file), strict=True):
            if slides:
                _replace_class(layer.self_attn, _windowed)
                layer.self_attn.window = sliding.window(file)
    if model.model_type == "gemma3_text":
        _replace_class(model.model, _exactly_scaled)


def _replace_class(module: Module, mixin: Any) -> None:
    module.__class__ = mixin(type(module))


def _windowed(attention: type[Any]) -> type[Any]:
    """Attention over the last `window` tokens, which mlx-lm's Gemma 2 does not have."""

    class Windowed(attention):  # type: ignore[misc]
        def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
            offset = cache.offset if cache is not None else 0
            queries = mx.arange(offset, offset + x.shape[1])[:, None]
            distance = queries - mx.arange(offset + x.shape[1])[None]
            seen = (distance >= 0) & (distance < self.window)
            attended: mx.array = super().__call__(x, seen if mask is None else seen & mask, cache)
            return attended

    return Windowed


def _exactly_scaled(decoder: type[Any]) -> type[Any]:
    """Embeddings times the root of the width, which mlx-lm's Gemma 3 rounds to bfloat16 as its authors do."""

    class ExactlyScaled(decoder):  # type: ignore[misc]
        def __call__(self, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None) -> mx.array:
            states = self.embed_tokens(inputs) if input_embeddings is None else input_embeddings
            root = math.sqrt(self.args.hidden_size)
            rounded = mx.array(root, mx.bfloat16).astype(mx.float32)
            caches = [*(cache or ()), *[None] * max(len(self.layers), self.sliding_window_pattern)]  # it looks at one
            output: mx.array = super().__call__(inputs, caches, states * (root / rounded))
            return output

    return ExactlyScaled
