"""The two things that weights become which MLX's affine groups cannot hold: float16, or affine groups of 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from localllm.weights.affine import GROUP_SIZE, Bytes, Floats

_LEVELS = np.float32(255)
_FLAT = np.float32(1e-36)
"""A group whose values lie closer together than this becomes one value: 255 over it would overflow."""


def to_half(values: Floats) -> NDArray[np.float16]:
    """float32 rounded to the nearest float16, ties to even, as numpy's own cast does it but twice as fast on x86.

    Adding 2**(e+13) to a number of exponent e pushes all but the ten bits that float16 keeps out of a float32, rounded
    by the processor. e is at least -14, which makes subnormal numbers come out right. From 65520 on, and for what is
    not a number, the result is infinite.
    """
    size = np.abs(values)
    magic = values.view(np.uint32) & np.uint32(0x7F800000)
    np.clip(magic, np.uint32((127 - 14) << 23), np.uint32((127 + 16) << 23), out=magic)
    magic += np.uint32(13 << 23)
    size += magic.view(np.float32)
    bits = size.view(np.uint32)
    bits -= magic
    magic >>= np.uint32(13)
    bits += magic
    bits -= np.uint32(126 << 10)
    np.clip(bits, np.uint32(0), np.uint32(0x7C00), out=bits)  # `minimum` is slower
    out = bits.astype(np.uint16)
    out |= values.view(np.uint16)[..., 1::2] & np.uint16(0x8000)
    return out.view(np.float16)


def to_8_bits(values: Floats) -> tuple[Bytes, Floats, Floats]:
    """Values (groups, 32) as quants (groups, 32), scale and bias (groups,): 256 equal steps from least to greatest.

    scale = (max - min) / 255 and bias = min, so that no value moves by more than half a step and the rounding of
    float32.
    """
    low, high = _extremes(values)
    spread = high - low
    flat = spread < _FLAT
    spread[flat] = 1
    steps = _LEVELS / spread
    steps[flat] = 0
    scale = spread / _LEVELS
    scale[flat] = 0
    position = values - low[:, None]
    position *= steps[:, None]
    np.rint(position, out=position)
    return position.astype(np.uint8), scale, low


def _extremes(values: Floats) -> tuple[Floats, Floats]:
    """Least and greatest of each group, by halving: numpy's own reduction of short rows is several times slower."""
    half = GROUP_SIZE // 2
    low = np.minimum(values[:, :half], values[:, half:]).reshape(-1)
    high = np.maximum(values[:, :half], values[:, half:]).reshape(-1)
    while half > 1:
        low, high, half = np.minimum(low[::2], low[1::2]), np.maximum(high[::2], high[1::2]), half // 2
    return low, high
