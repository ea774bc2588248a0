"""Blocks of GGUF as MLX's affine groups, as float16 or as float32: all cores, piece by piece, from the mapped file.

The types of AFFINE are MLX's affine groups under another name (blocks.py has their layouts): their quants are put in
order and packed anew, their scales and offsets become float32, and nothing is rounded. Other types have groups of 16
or levels that are not equally far apart. They can become affine groups with 8 bits (`repack8`) or float16 (`halve`).

Every function takes the blocks of one tensor and its shape, rows of a multiple of 32 (a block never spans two rows),
and allocates nothing beside its result but a few MB for each core. Tensors may have any number of dimensions: stacks
of experts are (experts, out, in).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import UnsupportedModelError
from localllm.weights.affine import GROUP_SIZE, Affine, Bytes, Floats, pack
from localllm.weights.blocks import UNPACK, values
from localllm.weights.chunks import each_chunk
from localllm.weights.ggml import BY_NAME
from localllm.weights.gguf import GGUFFile, TensorInfo
from localllm.weights.rounding import pairs_to_8_bits, to_8_bits, to_half

__all__ = [
    "AFFINE", "EXACT_IN_8_BITS", "GROUP_SIZE", "Affine", "Bytes", "Floats", "dequantize", "halve", "is_affine", "pack",
    "read_blocks", "repack", "repack8", "requantize8",
]  # fmt: skip

AFFINE = {"Q4_0": 4, "Q4_1": 4, "Q4_K": 4, "Q5_0": 5, "Q5_1": 5, "Q5_K": 5, "Q8_0": 8}
"""Types that are affine groups of 32, and the bits of their quants."""
EXACT_IN_8_BITS = frozenset({"IQ4_NL", "IQ4_XS", "MXFP4"})
"""Types whose levels are whole numbers of at most 8 bits in groups of 32, though not equally far apart."""

_PAIRS = {"Q6_K": 32, "Q3_K": 4}
"""Types in groups of 16 without a bias, and the size that their quants do not exceed."""


def read_blocks(file: GGUFFile, info: TensorInfo) -> Bytes:
    """The raw bytes of a tensor, mapped from the file: (blocks, bytes of a block)."""
    raw = np.memmap(file.path, np.uint8, "r", info.offset, (info.nbytes,))
    return np.asarray(raw).reshape(-1, BY_NAME[info.type].nbytes)


def is_affine(kind: str) -> bool:
    """Whether `repack` takes this ggml type."""
    return kind in AFFINE


def repack(blocks: Bytes, kind: str, shape: tuple[int, ...]) -> Affine:
    """Blocks (blocks, bytes) of a tensor of `shape` (..., out, in) as affine groups of the very same values.

    `kind` is one of AFFINE; KeyError for another.
    """

    def groups(piece: Bytes) -> tuple[Bytes, Floats, Floats]:
        quants, scale, bias = UNPACK[kind](piece)
        assert bias is not None
        return quants.view(np.uint8), scale, bias

    return _filled(blocks, BY_NAME[kind].weights, shape, AFFINE[kind], groups, narrow=True)


def repack8(blocks: Bytes, kind: str, shape: tuple[int, ...]) -> Affine:
    """Blocks of any quantized type, of `shape` (..., out, in), as affine groups of 32 with 8 bits.

    The types of EXACT_IN_8_BITS keep their values, and so does half of a Q6_K or Q3_K tensor (see `pairs_to_8_bits`);
    others are treated as `requantize8` does it. No weight moves by more than half a step, `scales`, of its group.
    Raises UnsupportedModelError for a type that cannot be dequantized.
    """

    def exact(piece: Bytes) -> tuple[Bytes, Floats, Floats]:
        quants, scale, _ = UNPACK[kind](piece)
        return quants.view(np.uint8) ^ np.uint8(0x80), scale, -128 * scale  # flipping the sign bit adds 128

    def rounded(piece: Bytes) -> tuple[Bytes, Floats, Floats]:
        if kind in _PAIRS:
            return pairs_to_8_bits(UNPACK[kind](piece), _PAIRS[kind])
        return to_8_bits(_values(piece, kind).reshape(-1, GROUP_SIZE))

    if kind in EXACT_IN_8_BITS:
        return _filled(blocks, BY_NAME[kind].weights, shape, 8, exact, narrow=True)
    return _filled(blocks, BY_NAME[kind].weights, shape, 8, rounded)


def requantize8(weights: Floats) -> Affine:
    """float32 values (..., out, in), `in` a multiple of 32, as affine groups of 8 bits.

    The 256 levels of a group lie at equal steps from its least to its greatest value, so no weight moves by more than
    half a step, (max - min) / 510, and the rounding of float32.
    """
    groups = np.ascontiguousarray(weights, np.float32).reshape(-1, GROUP_SIZE)
    return _filled(groups, GROUP_SIZE, weights.shape, 8, to_8_bits)


def halve(blocks: Bytes, kind: str, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Blocks of any type as float16 of `shape`, rounded to the nearest.

    A weight moves by at most 2**-11 of itself, or by 2**-25 where float16 is subnormal (below 6.1e-5); from 65520 on it
    becomes infinite. Raises UnsupportedModelError for a type that cannot be dequantized.
    """
    out = np.empty(shape, np.float16)
    target = out.reshape(len(blocks), -1)

    def work(piece: slice) -> None:
        to_half(_values(blocks[piece], kind).reshape(-1), target[piece].reshape(-1))

    each_chunk(len(blocks), BY_NAME[kind].weights, work)
    return out


def dequantize(blocks: Bytes, kind: str, shape: tuple[int, ...]) -> Floats:
    """Blocks of any type as float32 of `shape`, the values of ggml's reference. F32 is a view of the blocks.

    Raises UnsupportedModelError for a type that cannot be dequantized.
    """
    if kind == "F32":
        return blocks.reshape(-1).view(np.float32).reshape(shape)
    out = np.empty(shape, np.float32)
    target = out.reshape(len(blocks), -1)

    def work(piece: slice) -> None:
        if kind in UNPACK:
            values(UNPACK[kind](blocks[piece]), target[piece])
        else:
            target[piece] = _values(blocks[piece], kind).reshape(-1, target.shape[1])

    each_chunk(len(blocks), BY_NAME[kind].weights, work)
    return out


def _filled(
    source: NDArray[Any],
    weights: int,
    shape: tuple[int, ...],
    bits: int,
    groups: Callable[[NDArray[Any]], tuple[Bytes, Floats, Floats]],
    *,
    narrow: bool = False,
) -> Affine:
    """An Affine of `shape`, filled from pieces of `source` (n blocks of `weights` weights) as quants, scale, bias.

    `narrow` says that `groups` makes no float32 value for each weight.
    """
    rows, columns = shape[:-1], shape[-1]
    words = np.empty((*rows, columns * bits // 32), np.uint32)
    scales, biases = (np.empty((*rows, columns // GROUP_SIZE), np.float32) for _ in range(2))
    targets = [array.reshape(len(source), -1) for array in (words, scales, biases)]

    def work(piece: slice) -> None:
        quants, scale, bias = groups(source[piece])
        for target, part in zip(targets, (pack(quants, bits), scale, bias), strict=True):
            target[piece] = part.reshape(-1, target.shape[1])

    each_chunk(len(source), weights, work, narrow=narrow)
    return Affine(words, scales, biases, bits)


def _values(blocks: Bytes, kind: str) -> Floats:
    """Blocks as float32, contiguous, of no particular shape and nobody else's; rare types by the gguf package."""
    if kind in UNPACK:
        return values(UNPACK[kind](blocks))
    if kind == "F32":
        return blocks.reshape(-1).view(np.float32).copy()
    if kind == "F16":
        return blocks.reshape(-1).view(np.float16).astype(np.float32)
    if kind == "BF16":  # the upper half of a float32
        return (blocks.reshape(-1).view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    if kind == "F64":
        return blocks.reshape(-1).view(np.float64).astype(np.float32)
    import gguf

    try:
        return np.ascontiguousarray(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]), np.float32)
    except (KeyError, NotImplementedError) as error:
        raise UnsupportedModelError(f"Tensors of type {kind} cannot be dequantized.", "Use another file.") from error
