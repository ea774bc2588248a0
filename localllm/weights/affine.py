"""MLX's affine format: w = scale * q + bias for each group of 32 weights of a row, the q packed into 32-bit words.

MLX packs quants as a little-endian stream of bits. Packing works on whole machine words, several quants at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUP_SIZE = 32
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint32]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Affine:
    """A matrix, or a stack of them, in MLX's affine format with groups of 32 along the input."""

    words: Words
    """(..., out, in * bits / 32)"""
    scales: Floats
    """(..., out, in / 32)"""
    biases: Floats
    """(..., out, in / 32)"""
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes of all three arrays."""
        return self.words.nbytes + self.scales.nbytes + self.biases.nbytes

    def take_rows(self, order: NDArray[np.intp]) -> Affine:
        """The same with the rows (the axis before the last) of each matrix in another order."""
        take = (..., order, slice(None))
        return Affine(self.words[take], self.scales[take], self.biases[take], self.bits)

    def values(self) -> Floats:
        """What MLX's dequantize gives, (..., out, in): scale * q + bias in float32, rounded after each of the two."""
        quants = unpack(self.words, self.bits)
        out = quants.reshape(-1, GROUP_SIZE).astype(np.float32)
        out *= self.scales.reshape(-1, 1)
        out += self.biases.reshape(-1, 1)
        return out.reshape(quants.shape)


def pack(quants: Bytes, bits: int) -> Words:
    """Quants (..., n) of 4, 5 or 8 bits, with n a multiple of 32, as words (..., n * bits / 32)."""
    shape = (*quants.shape[:-1], quants.shape[-1] * bits // 32)
    return _PACK[bits](np.ascontiguousarray(quants).reshape(-1)).reshape(shape)


def unpack(words: Words, bits: int) -> Bytes:
    """The inverse of `pack`: words (..., n * bits / 32) to quants (..., n)."""
    shape = (*words.shape[:-1], words.shape[-1] * 32 // bits)
    stream = np.ascontiguousarray(words).view(np.uint8).reshape(-1)
    if bits == 8:
        return stream.reshape(shape)
    if bits == 4:
        return np.stack([stream & np.uint8(15), stream >> np.uint8(4)], axis=-1).reshape(shape)
    singles = np.unpackbits(stream, bitorder="little").reshape(-1, bits)
    return np.packbits(singles, axis=1, bitorder="little").reshape(shape)


def _pack4(quants: Bytes) -> Words:
    pairs = quants.view(np.uint16)
    return (pairs | pairs >> np.uint16(4)).astype(np.uint8).view(np.uint32)  # the cast keeps the low byte


def _pack5(quants: Bytes) -> Words:
    """Eight quants in 64 bits close up to 10, 20 and 40 bits; four times 40 bits make five words."""
    x = quants.view(np.uint64)
    x = (x & np.uint64(0x001F001F001F001F)) | ((x & np.uint64(0x1F001F001F001F00)) >> np.uint64(3))
    x = (x & np.uint64(0x000003FF000003FF)) | ((x & np.uint64(0x03FF000003FF0000)) >> np.uint64(6))
    x = ((x & np.uint64(0xFFFFF)) | ((x & np.uint64(0x000FFFFF00000000)) >> np.uint64(12))).reshape(-1, 4)
    words = np.empty((len(x), 5), np.uint32)
    words[:, 0] = x[:, 0] & _LOW
    words[:, 1] = (x[:, 0] >> np.uint64(32) | x[:, 1] << np.uint64(8)) & _LOW
    words[:, 2] = (x[:, 1] >> np.uint64(24) | x[:, 2] << np.uint64(16)) & _LOW
    words[:, 3] = (x[:, 2] >> np.uint64(16) | x[:, 3] << np.uint64(24)) & _LOW
    words[:, 4] = x[:, 3] >> np.uint64(8)
    return words.reshape(-1)


def _pack8(quants: Bytes) -> Words:
    return quants.view(np.uint32)


_LOW = np.uint64(0xFFFFFFFF)
_PACK = {4: _pack4, 5: _pack5, 8: _pack8}
