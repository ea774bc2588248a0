"""Rotary positions as llama.cpp computes them: the period of each pair of dimensions, and a magnitude.

The angle of pair i at position p is p / period[i]. From rope_yarn and ggml_rope_cache_init (ggml-cpu/ops.cpp),
ggml_rope_yarn_corr_dims (ggml.c), the settings that llama_context makes of the metadata (llama-context.cpp), and the
choice of factors in llama_model::get_rope_factors (llama-model.cpp).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localllm.errors import UnsupportedModelError
from localllm.weights.architectures import architecture_of
from localllm.weights.architectures.base import head_dim, integer, number
from localllm.weights.gguf import GGUFFile
from localllm.weights.quant import dequantize, read_blocks

Periods = NDArray[np.float32]
_YARN_FAST, _YARN_SLOW = 32.0, 1.0  # beta_fast and beta_slow; for these architectures llama.cpp reads no others


LONG = "rope_factors_long.weight"
DEFAULT_CTX = 4096  # as in engine.loading


@dataclass(frozen=True)
class Rotary:
    """Positions of one layer."""

    periods: Periods
    """(rotated dimensions / 2,)"""
    magnitude: float = 1.0
    """What the rotated dimensions are multiplied with."""


def usual_ctx(file: GGUFFile) -> int:
    """Tokens of the context that chat has when nothing else is said: what is trained is trained for that."""
    return min(integer(file, "context_length"), DEFAULT_CTX)


def depends_on_ctx(file: GGUFFile) -> bool:
    """Whether the size of the context changes the positions (longrope)."""
    return LONG in file.tensors


def rotary(file: GGUFFile, n_ctx: int) -> list[Rotary]:
    """Positions of every layer, for a context of `n_ctx` tokens: longrope has other factors for long ones.

    Raises UnsupportedModelError for a kind of scaling that is not known.
    """
    layers, sliding = integer(file, "block_count"), architecture_of(file).sliding
    whole = _scaled(file, float(number(file, "rope.freq_base", 10000.0)), n_ctx)
    if sliding is None:
        return [whole] * layers
    base = float(number(file, sliding.base, 10000.0))
    local = _scaled(file, base, n_ctx) if sliding.scaled else Rotary(_plain(file, base).astype(np.float32))
    return [local if slides else whole for slides in sliding.layers(file)]


def _scaled(file: GGUFFile, base: float, n_ctx: int) -> Rotary:
    kind = file.metadata.get(f"{file.architecture}.rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise UnsupportedModelError(f"{file.path} scales its positions by {kind!r}, which cannot be fine-tuned yet.")
    factor = 1.0 if kind == "none" else _factor(file)
    original = integer(file, "rope.scaling.original_context_length", integer(file, "context_length"))
    periods = _plain(file, base) * _factors(file, n_ctx > original)
    if kind == "yarn":
        kept = _ramp(file, base, original)
        periods = 1 / ((1 - kept) / (periods * factor) + kept / periods)
    else:
        periods = periods * factor
    magnitude = float(number(file, "rope.scaling.attn_factor", 1.0))
    if kind == "yarn" and factor > 1:
        magnitude *= 1 + 0.1 * math.log(factor)
    return Rotary(periods.astype(np.float32), magnitude)


def _plain(file: GGUFFile, base: float) -> NDArray[np.float64]:
    dims = integer(file, "rope.dimension_count", head_dim(file))
    return np.asarray(base ** (np.arange(0, dims, 2, dtype=np.float64) / dims))


def _factor(file: GGUFFile) -> float:
    """By how much the context was stretched; an older key is still read."""
    return float(number(file, "rope.scaling.factor", number(file, "rope.scale_linear", 0.0)) or 1.0)


def _factors(file: GGUFFile, long: bool) -> NDArray[np.float64]:
    """Llama 3 and longrope give a factor for each period."""
    for name in ("rope_freqs.weight", LONG if long else "rope_factors_short.weight"):
        if (info := file.tensors.get(name)) is not None:
            return dequantize(read_blocks(file, info), info.type, info.shape).astype(np.float64)
    return np.ones(1)


def _ramp(file: GGUFFile, base: float, original: int) -> NDArray[np.float64]:
    """For each pair, how much of the unscaled angle YaRN keeps: 1 for fast ones, 0 for slow ones."""
    dims = integer(file, "rope.dimension_count", head_dim(file))

    def dimension(rotations: float) -> float:
        return dims * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(0, math.floor(dimension(_YARN_FAST))), min(dims - 1, math.ceil(dimension(_YARN_SLOW)))
    position = (np.arange(dims // 2) - low) / max(0.001, high - low)
    return np.asarray(1 - np.clip(position, 0, 1))
