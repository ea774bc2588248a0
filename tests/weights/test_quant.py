"""Repacked blocks against gguf's own dequantization and MLX's arithmetic, and packed words against MLX's quantizer."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest

from localllm.errors import UnsupportedModelError
from localllm.weights import chunks
from localllm.weights.affine import unpack
from localllm.weights.blocks import UNPACK
from localllm.weights.convert import Becomes, Other, becomes, convert, convert_blocks
from localllm.weights.ggml import BY_NAME
from localllm.weights.gguf import TensorInfo, read_header
from localllm.weights.quant import (
    AFFINE,
    EXACT_IN_8_BITS,
    GROUP_SIZE,
    Affine,
    dequantize,
    halve,
    is_affine,
    pack,
    read_blocks,
    repack,
    repack8,
    requantize8,
)  # fmt: skip
from localllm.weights.rounding import to_half

SHAPE = (6, 512)
SCALES_AT = {  # bytes of a block at which its float16 scales and minima lie (ggml-common.h)
    **dict.fromkeys(["Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS"], (0,)),
    **dict.fromkeys(["Q4_1", "Q5_1", "Q4_K", "Q5_K"], (0, 2)),
    "Q6_K": (208,),
    "Q3_K": (108,),
    "Q2_K": (80, 82),
    "MXFP4": (),
}
OTHERS = sorted(SCALES_AT.keys() - AFFINE.keys())
ODD_SCALES = np.array([0.0, -0.0, 6e-8, -6e-8, 6.1e-5, -1.0, 10.0, 0.1], np.float16)  # two are subnormal


def random_blocks(kind: str, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    """Blocks with random bits, so that every pattern of quants is met, and with finite scales of all sorts."""
    rng = np.random.default_rng(seed)
    block = BY_NAME[kind]
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // block.weights, block.nbytes), dtype=np.uint8)
    for start in SCALES_AT[kind]:
        scales = rng.standard_normal(len(blocks)).astype(np.float16)
        scales[: len(ODD_SCALES)] = rng.permutation(ODD_SCALES)[: len(blocks)]
        blocks[:, start : start + 2] = scales.view(np.uint8).reshape(-1, 2)
    if kind == "MXFP4":
        blocks[:, 0] = rng.integers(100, 140, len(blocks))
        blocks[:2, 0] = [0, 1]  # the two exponents with a formula of their own
    return blocks


def reference(blocks: np.ndarray, kind: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    values = gguf.quants.dequantize(blocks.reshape(*shape[:-1], -1), gguf.GGMLQuantizationType[kind])
    return np.asarray(values, np.float32).reshape(shape)


def in_mlx(affine: Affine) -> np.ndarray:
    arrays = (mx.array(affine.words), mx.array(affine.scales), mx.array(affine.biases))
    return np.asarray(mx.dequantize(*arrays, GROUP_SIZE, affine.bits))


def same_bytes(a: Affine, b: Affine) -> bool:
    pairs = ((a.words, b.words), (a.scales, b.scales), (a.biases, b.biases))
    return all(x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


@pytest.mark.parametrize("shape", [SHAPE, (1, 256), (7, 768), (3, 5, 512)], ids=str)
@pytest.mark.parametrize("kind", AFFINE)
def test_repacked_blocks_hold_the_same_values(kind: str, shape: tuple[int, ...]) -> None:
    blocks = random_blocks(kind, shape)
    affine = repack(blocks, kind, shape)
    bits = AFFINE[kind]
    assert affine.words.shape == (*shape[:-1], shape[-1] * bits // 32)
    assert affine.scales.shape == affine.biases.shape == (*shape[:-1], shape[-1] // GROUP_SIZE)
    expected = reference(blocks, kind, shape)
    assert np.array_equal(in_mlx(affine), expected)
    assert np.array_equal(affine.values(), expected)
    assert np.array_equal(dequantize(blocks, kind, shape), expected)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"])
def test_rows_of_one_group(kind: str) -> None:
    blocks = random_blocks(kind, (3, 32))
    affine = repack(blocks, kind, (3, 32)) if is_affine(kind) else repack8(blocks, kind, (3, 32))
    assert np.array_equal(in_mlx(affine), reference(blocks, kind, (3, 32)))


@pytest.mark.parametrize("kind", OTHERS)
def test_other_types_are_dequantized_bit_for_bit(kind: str) -> None:
    blocks = random_blocks(kind, (3, 5, 512))
    expected = reference(blocks, kind, (3, 5, 512))
    assert not is_affine(kind)
    assert dequantize(blocks, kind, (3, 5, 512)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["TQ1_0", "IQ2_XXS"])
def test_rare_types_go_through_the_gguf_package(kind: str) -> None:
    blocks = np.zeros((4, BY_NAME[kind].nbytes), np.uint8)
    blocks[:, -2:] = blocks[:, :2] = np.float16([0.5]).view(np.uint8)
    assert np.array_equal(dequantize(blocks, kind, (2, 512)), reference(blocks, kind, (2, 512)))


def test_a_type_without_values_is_refused() -> None:
    blocks = np.zeros((1, BY_NAME["Q8_K"].nbytes), np.uint8)
    with pytest.raises(UnsupportedModelError, match="Q8_K"):
        dequantize(blocks, "Q8_K", (1, 256))


@pytest.mark.parametrize("kind", ["F16", "BF16", "F32"])
def test_plain_floats_are_exact(kind: str) -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 15, (4, 32 if kind == "F32" else 64), dtype=np.uint16)
    blocks = (bits & 0x7BFF).view(np.uint8)  # finite, with zeros and subnormal numbers
    columns = 16 if kind == "F32" else 64
    raw = blocks.reshape(-1, BY_NAME[kind].nbytes)
    values = dequantize(raw, kind, (4, columns))
    assert values.dtype == np.float32
    expected = blocks.view(np.float32) if kind == "F32" else reference(blocks, kind, (4, columns))
    assert np.array_equal(values, expected)


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_words_are_packed_as_mlx_packs_them(bits: int) -> None:
    weights = mx.array(np.random.default_rng(bits).standard_normal((4, 256), dtype=np.float32))
    words, scales, biases = mx.quantize(weights, GROUP_SIZE, bits)
    values = np.asarray(mx.dequantize(words, scales, biases, GROUP_SIZE, bits)).reshape(4, -1, GROUP_SIZE)
    scale, bias = np.asarray(scales)[..., None], np.asarray(biases)[..., None]
    quants = np.rint((values - bias) / scale).astype(np.uint8).reshape(4, -1)
    assert np.array_equal(pack(quants, bits), np.asarray(words))
    assert np.array_equal(unpack(np.asarray(words), bits), quants)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["Q4_K", "Q5_0", "Q6_K", "MXFP4"])
def test_pieces_and_threads_change_nothing(kind: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (13, 768)
    blocks = random_blocks(kind, shape)
    whole = (halve(blocks, kind, shape), repack8(blocks, kind, shape), dequantize(blocks, kind, shape))
    packed = repack(blocks, kind, shape) if is_affine(kind) else None
    monkeypatch.setattr(chunks, "WEIGHTS", 1280)  # five blocks of 256: pieces end within rows, the last is short
    monkeypatch.setattr(chunks, "_FEWEST", 1280)
    monkeypatch.setattr(chunks, "workers", lambda: threads)
    assert halve(blocks, kind, shape).tobytes() == whole[0].tobytes()
    assert same_bytes(repack8(blocks, kind, shape), whole[1])
    assert dequantize(blocks, kind, shape).tobytes() == whole[2].tobytes()
    assert packed is None or same_bytes(repack(blocks, kind, shape), packed)


def test_an_error_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "workers", lambda: 2)

    def work(piece: slice) -> None:
        if piece.start:
            raise ValueError("the second piece")

    with pytest.raises(ValueError, match="the second piece"):
        chunks.each_chunk(2 * chunks.WEIGHTS, 1, work)


@pytest.mark.parametrize("kind, other", [("Q4_K", "16bit"), ("Q6_K", "16bit"), ("Q6_K", "8bit"), ("Q5_0", "16bit")])
def test_what_is_needed_beside_the_result_is_small(kind: str, other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (4096, 4096)
    monkeypatch.setattr(chunks, "workers", lambda: 2)
    chunks._reuse_freed_memory()
    blocks = random_blocks(kind, shape)
    info = TensorInfo("large", shape, kind, 0, blocks.nbytes)
    tracemalloc.start()
    try:
        result = convert_blocks(blocks, info, other).nbytes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result < peak <= result + 2 * blocks.nbytes


def test_rows_are_taken_from_each_matrix_of_a_stack() -> None:
    shape, order = (2, 4, 64), np.array([2, 0, 3, 1])
    affine = repack(random_blocks("Q4_0", shape), "Q4_0", shape)
    taken = affine.take_rows(order)
    assert same_bytes(taken, Affine(affine.words[:, order], affine.scales[:, order], affine.biases[:, order], 4))
    assert np.array_equal(in_mlx(taken), in_mlx(affine)[:, order])


def rounded_to_half(values: np.ndarray) -> np.ndarray:
    half = np.empty(values.shape, np.float16)
    to_half(values.copy(), half)
    return half


def test_float16_is_rounded_as_numpy_rounds() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 200_000, dtype=np.uint64).astype(np.uint32)
    finite = bits.view(np.float32)[np.isfinite(bits.view(np.float32))]
    ties = (np.arange(1 << 15, dtype=np.uint16).view(np.float16).astype(np.float32)).view(np.uint32) + np.uint32(
        1 << 12
    )
    near = rng.standard_normal(100_000).astype(np.float32) * np.float32(1e-5)
    edges = np.array([0, -0.0, 65504, 65519.9, 65520, -65520, 1e30, np.inf, -np.inf, 2**-24, 2**-25], np.float32)
    for values in (finite, ties[:0x7C00].view(np.float32), near, edges):
        with np.errstate(over="ignore"):
            expected = values.astype(np.float16)
        assert rounded_to_half(values).tobytes() == expected.tobytes()
    assert np.isnan(rounded_to_half(np.array([np.nan, 1.0], np.float32))).tolist() == [True, False]
    blocks = near.view(np.uint8).reshape(-1, 4)
    assert halve(blocks, "F32", near.shape).tobytes() == rounded_to_half(near).tobytes()


@pytest.mark.parametrize("kind", ["Q6_K", "Q3_K", "Q2_K", "IQ4_NL"])
def test_16_bits_lose_only_the_rounding(kind: str) -> None:
    blocks = random_blocks(kind)
    expected = reference(blocks, kind)
    rounded = halve(blocks, kind, SHAPE)
    assert rounded.dtype == np.float16
    bound = np.maximum(np.abs(expected) * 2.0**-11, 2.0**-25)
    assert (np.abs(rounded - expected) <= bound).all()
    assert (rounded != expected).any(), "values that float16 cannot hold are among them"


@pytest.mark.parametrize("kind", OTHERS)
def test_8_bits_lose_at_most_half_a_step(kind: str) -> None:
    blocks = random_blocks(kind)
    expected = reference(blocks, kind)
    affine = repack8(blocks, kind, SHAPE)
    assert affine.bits == 8
    error = np.abs(in_mlx(affine) - expected).reshape(-1, GROUP_SIZE)
    if kind in EXACT_IN_8_BITS:
        assert error.max() == 0.0
        return
    step = np.abs(affine.scales).reshape(-1)
    groups = expected.reshape(-1, GROUP_SIZE)
    rounding = np.abs(groups).max(axis=1) * 2.0**-22
    assert (error <= (step / 2 + rounding)[:, None]).all()
    assert error.max() > 0.0
    if kind == "Q2_K":
        assert np.allclose(step, (groups.max(axis=1) - groups.min(axis=1)) / 255, rtol=1e-6, atol=0)
        assert same_bytes(affine, requantize8(expected))


@pytest.mark.parametrize("kind, most", [("Q6_K", 32), ("Q3_K", 4)])
def test_8_bits_keep_the_group_with_the_larger_scale(kind: str, most: int) -> None:
    blocks = random_blocks(kind, (64, 512))
    affine = repack8(blocks, kind, (64, 512))
    scale = np.abs(UNPACK[kind](blocks).scale.reshape(-1, 2))
    error = np.abs(affine.values() - reference(blocks, kind, (64, 512))).reshape(-1, 2, 16).max(axis=2)
    step = np.abs(affine.scales).reshape(-1)
    whole = step == scale.max(axis=1) * most / 128
    assert whole.mean() > 0.9
    larger = np.where(scale[:, 0] >= scale[:, 1], error[:, 0], error[:, 1])
    assert (larger[whole] == 0).all()
    assert np.allclose(step[~whole], scale[~whole].max(axis=1) * most / 127, rtol=1e-6, atol=0)


def test_8_bits_of_opposite_scales_do_not_wrap() -> None:
    blocks = random_blocks("Q6_K", (1, 256))
    blocks[:, :192] = 0  # every quant is -32
    blocks[:, 192:208] = np.tile(np.array([100, -100], np.int8), 8).view(np.uint8)
    blocks[:, 208:210] = np.float16([1]).view(np.uint8)
    values = repack8(blocks, "Q6_K", (1, 256)).values()
    assert np.allclose(values, reference(blocks, "Q6_K", (1, 256)), rtol=0.005)


def test_8_bits_of_groups_without_a_range() -> None:
    flat = np.repeat(np.float32([[0.0], [-3.25], [1e-38], [2.0]]), GROUP_SIZE, axis=1)
    flat[2, 0] = 2e-38  # too little to be divided by
    affine = requantize8(flat)
    assert np.isfinite(affine.scales).all()
    assert np.abs(affine.values() - flat).max() <= 1e-36


@pytest.mark.parametrize(
    "kind, other, expected",
    [
        ("Q4_K", "8bit", Becomes("affine", 4, True)),
        ("Q5_0", "16bit", Becomes("affine", 5, True)),
        ("BF16", "8bit", Becomes("bfloat16", 16, True)),
        ("Q6_K", "16bit", Becomes("float16", 16, False)),
        ("Q6_K", "8bit", Becomes("affine", 8, False)),
        ("MXFP4", "8bit", Becomes("affine", 8, True)),
        ("Q8_K", "8bit", Becomes("nothing", 0, False)),
    ],
)
def test_what_a_type_becomes(kind: str, other: str, expected: Becomes) -> None:
    assert becomes(kind, other) == expected


def test_every_type_that_becomes_something_has_values() -> None:
    for block in BY_NAME.values():
        if becomes(block.name).form not in ("nothing", "integers"):
            values = dequantize(np.zeros((1, block.nbytes), np.uint8), block.name, (1, block.weights))
            assert values.shape == (1, block.weights), block.name
            assert values.dtype == np.float32, block.name
            assert np.isfinite(values).all(), block.name


@pytest.mark.parametrize("other", ["16bit", "8bit"])
def test_a_file_is_converted_tensor_by_tensor(guide_path: Path, other: str) -> None:
    file = read_header(guide_path)
    seen = []
    for info, target, data in convert(file, other):
        expected = reference(read_blocks(file, info), info.type, info.shape)
        values = data.values() if isinstance(data, Affine) else data
        assert target.exact
        assert np.array_equal(values, expected)
        assert data.nbytes == target.nbytes(expected.size)
        seen.append(info.name)
    assert seen == list(file.tensors)
