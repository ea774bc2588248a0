"""Repacked blocks against gguf's own dequantization, and packed words against MLX's own quantizer."""

from __future__ import annotations

import gguf
import mlx.core as mx
import numpy as np
import pytest

from localllm.weights.ggml import BY_NAME
from localllm.weights.quant import GROUP_SIZE, dequantize, is_affine, pack, repack

SHAPE = (6, 512)


def random_blocks(kind: str, seed: int = 0) -> np.ndarray:
    """Blocks with random quants and scales that are finite, so that every bit pattern of the quants is met."""
    rng = np.random.default_rng(seed)
    block = BY_NAME[kind]
    blocks = rng.integers(0, 256, (SHAPE[0] * SHAPE[1] // block.weights, block.nbytes), dtype=np.uint8)
    halves = 2 if kind in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else 1
    blocks[:, : 2 * halves] = rng.standard_normal((len(blocks), halves)).astype(np.float16).view(np.uint8)
    return blocks


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K"])
def test_repacked_blocks_hold_the_same_values(kind: str) -> None:
    blocks = random_blocks(kind)
    affine = repack(blocks, kind, SHAPE)
    ours = mx.dequantize(
        mx.array(affine.words), mx.array(affine.scales), mx.array(affine.biases), GROUP_SIZE, affine.bits
    )
    reference = gguf.quants.dequantize(blocks.reshape(SHAPE[0], -1), gguf.GGMLQuantizationType[kind])
    assert np.abs(np.asarray(ours) - reference).max() == 0.0
    assert np.array_equal(dequantize(blocks, kind, SHAPE), reference)


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_words_are_packed_as_mlx_packs_them(bits: int) -> None:
    weights = mx.array(np.random.default_rng(bits).standard_normal((4, 256), dtype=np.float32))
    words, scales, biases = mx.quantize(weights, GROUP_SIZE, bits)
    values = np.asarray(mx.dequantize(words, scales, biases, GROUP_SIZE, bits)).reshape(4, -1, GROUP_SIZE)
    scale, bias = np.asarray(scales)[..., None], np.asarray(biases)[..., None]
    quants = np.rint((values - bias) / scale).astype(np.uint8).reshape(4, -1)
    assert np.array_equal(pack(quants, bits), np.asarray(words))


def test_other_types_are_dequantized_and_not_repacked() -> None:
    assert not is_affine("Q6_K")
    assert not is_affine("F16")
    values = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float16)
    assert np.array_equal(dequantize(values.view(np.uint8), "F16", (4, 32)), values.astype(np.float32))
