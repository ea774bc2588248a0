"""Blocks of GGUF to MLX's affine groups, bit for bit, or to float32.

MLX stores w = scale * q + bias for each group of 32 weights of a row. Several ggml block types (ggml-common.h) are just
that; their quants are reordered and packed anew, their scales and minima become float32, and nothing is rounded:

    type    bits  scale    bias         quants in a block
    Q4_0    4     d        -8 d         32, low nibbles then high nibbles
    Q4_1    4     d        m            the same
    Q5_0    5     d        -16 d        the same, with the fifth bits in a 32-bit word
    Q5_1    5     d        m            the same
    Q8_0    8     d        -128 d       32 signed bytes, stored as q + 128
    Q4_K    4     d sc_j   -dmin m_j    8 groups of 32; sc_j and m_j have 6 bits, packed into 12 bytes
    Q5_K    5     d sc_j   -dmin m_j    the same, with the fifth bits in 32 bytes

MLX packs quants as a little-endian stream of bits into 32-bit words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from localllm.weights.ggml import BY_NAME
from localllm.weights.gguf import GGUFFile, TensorInfo

GROUP_SIZE = 32
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
_Groups = tuple[Bytes, Floats, Floats]
"""Quants (groups, 32), scale (groups,) and bias (groups,)."""


@dataclass(frozen=True)
class Affine:
    """A matrix in MLX's affine format with groups of 32 along the input."""

    words: NDArray[np.uint32]
    """(out, in * bits / 32)"""
    scales: Floats
    """(out, in / 32)"""
    biases: Floats
    """(out, in / 32)"""
    bits: int

    def take_rows(self, order: NDArray[np.intp]) -> Affine:
        """The same matrix with its rows in another order."""
        return Affine(self.words[order], self.scales[order], self.biases[order], self.bits)


def read_blocks(file: GGUFFile, info: TensorInfo) -> Bytes:
    """The raw bytes of a tensor, mapped from the file: (blocks, bytes of a block)."""
    raw = np.memmap(file.path, np.uint8, "r", info.offset, (info.nbytes,))
    return np.asarray(raw).reshape(-1, BY_NAME[info.type].nbytes)


def is_affine(kind: str) -> bool:
    """Whether `repack` takes this ggml type."""
    return kind in _UNPACK


def repack(blocks: Bytes, kind: str, shape: tuple[int, ...]) -> Affine:
    """Blocks (blocks, bytes) of a matrix of `shape` (out, in) as an affine matrix of the very same values."""
    rows, columns = shape
    bits, unpack = _UNPACK[kind]
    quants, scale, bias = unpack(blocks)
    words = pack(quants.reshape(rows, columns), bits)
    groups = (rows, columns // GROUP_SIZE)
    return Affine(words, scale.reshape(groups), bias.reshape(groups), bits)


def dequantize(blocks: Bytes, kind: str, shape: tuple[int, ...]) -> Floats:
    """Blocks of any type as float32, by the reference of the gguf package; BF16, F16 and F32 are exact."""
    if kind == "F32":
        return blocks.reshape(-1).view(np.float32).reshape(shape)
    import gguf

    values = gguf.quants.dequantize(blocks.reshape(*shape[:-1], -1), gguf.GGMLQuantizationType[kind])
    return np.ascontiguousarray(values, np.float32).reshape(shape)


def pack(quants: Bytes, bits: int) -> NDArray[np.uint32]:
    """Quants (rows, n) of `bits` bits each as MLX's words (rows, n * bits / 32)."""
    rows = quants.shape[0]
    if bits == 8:
        return np.ascontiguousarray(quants).view(np.uint32)
    if bits == 4:
        return np.ascontiguousarray(quants[:, 0::2] | quants[:, 1::2] << np.uint8(4)).view(np.uint32)
    # eight quants fill `bits` bytes: gather them in 64 bits and keep the low bytes
    eights = quants.reshape(rows, -1, 8).astype(np.uint64)
    stream = np.zeros(eights.shape[:2], "<u8")
    for i in range(8):
        stream |= eights[:, :, i] << np.uint64(bits * i)
    low = stream[..., None].view(np.uint8)[..., :bits]
    return np.ascontiguousarray(low).reshape(rows, -1).view(np.uint32)


def _half(blocks: Bytes, start: int) -> Floats:
    """The float16 at byte `start` of each block."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view(np.float16).astype(np.float32).reshape(-1)


def _nibbles(packed: Bytes) -> Bytes:
    """(n, 16) bytes -> (n, 32): the low nibbles, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(words: Bytes) -> Bytes:
    """(n, 4) bytes -> (n, 32): each bit, moved to where it counts 16."""
    return np.unpackbits(words, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(blocks: Bytes) -> _Groups:
    d = _half(blocks, 0)
    return _nibbles(blocks[:, 2:]), d, -8 * d


def _q4_1(blocks: Bytes) -> _Groups:
    return _nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2)


def _q5_0(blocks: Bytes) -> _Groups:
    d = _half(blocks, 0)
    return _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), d, -16 * d


def _q5_1(blocks: Bytes) -> _Groups:
    return _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8]), _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: Bytes) -> _Groups:
    d = _half(blocks, 0)
    return blocks[:, 2:] ^ np.uint8(0x80), d, -128 * d  # flipping the sign bit adds 128


def _k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scale and bias of the 8 groups of each Q4_K or Q5_K block, (8 * blocks,) each."""
    low, middle, mixed = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    sc = np.concatenate([low & 63, (mixed & 15) | (low >> 2 & 48)], axis=1)
    m = np.concatenate([middle & 63, (mixed >> 4) | (middle >> 2 & 48)], axis=1)
    scale = _half(blocks, 0)[:, None] * sc.astype(np.float32)
    bias = -_half(blocks, 2)[:, None] * m.astype(np.float32)
    return scale.reshape(-1), bias.reshape(-1)


def _k_nibbles(packed: Bytes) -> Bytes:
    """(n, 128) bytes -> (n, 8, 32): each 32 bytes hold the low nibbles of one group and the high ones of the next."""
    pairs = packed.reshape(-1, 4, 1, 32)
    return np.concatenate([pairs & 15, pairs >> 4], axis=2).reshape(-1, 8, 32)


def _q4_k(blocks: Bytes) -> _Groups:
    return _k_nibbles(blocks[:, 16:]).reshape(-1, 32), *_k_scales(blocks)


def _q5_k(blocks: Bytes) -> _Groups:
    group = np.arange(8, dtype=np.uint8)[None, :, None]
    fifth = (blocks[:, None, 16:48] >> group) & np.uint8(1)  # bit j of each byte belongs to group j
    return (_k_nibbles(blocks[:, 48:]) | fifth << np.uint8(4)).reshape(-1, 32), *_k_scales(blocks)


_UNPACK: dict[str, tuple[int, Callable[[Bytes], _Groups]]] = {
    "Q4_0": (4, _q4_0),
    "Q4_1": (4, _q4_1),
    "Q5_0": (5, _q5_0),
    "Q5_1": (5, _q5_1),
    "Q8_0": (8, _q8_0),
    "Q4_K": (4, _q4_k),
    "Q5_K": (5, _q5_k),
}
