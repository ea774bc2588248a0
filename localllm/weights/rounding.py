"""The two things that weights become which MLX's affine groups cannot hold: float16, or affine groups of 8 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from localllm.weights.affine import GROUP_SIZE, Bytes, Floats
from localllm.weights.blocks import Groups

_OVERFLOW = 65520
"""From here on numbers are nearer to what would be the next float16 than to the greatest."""
_EXPONENT = (13 + 127 - 14) << 10
"""What the exponent of 2**(e + 13), moved to its place in a float16, has too much."""
_LEVELS = np.float32(255)
_FLAT = np.float32(1e-36)
"""A group whose values lie closer together than this becomes one value: 255 over it would overflow."""


def to_half(values: Floats, half: NDArray[np.float16]) -> None:
    """float32 rounded to float16 as numpy's own cast rounds it, to the nearest and ties to even, but faster on x86.

    Both are contiguous and of one shape; `values` is overwritten with what lies between the steps. A number of exponent
    e, at least -14, is added to 2**(e + 13): the processor then rounds away all but the ten bits that float16 keeps,
    and leaves them, with the leading one, at the end of the sum's bits. With e = -14 for all that is smaller,
    subnormal numbers come out right. What has no float16 is left to numpy.
    """
    bits, out = values.view(np.uint32), half.view(np.uint16)
    power = bits >> np.uint32(16)
    out[...] = power
    out &= np.uint16(0x8000)
    np.abs(values, out=values)
    if not values.max(initial=0) < _OVERFLOW:  # not `>=`: it may not be a number
        with np.errstate(over="ignore"):
            out |= values.astype(np.float16).view(np.uint16)
        return
    np.bitwise_and(bits, np.uint32(0x7F800000), out=power)
    np.clip(power, np.uint32((127 - 14) << 23), np.uint32((127 + 15) << 23), out=power)
    power += np.uint32(13 << 23)
    values += power.view(np.float32)
    out += bits.astype(np.uint16)  # the low bits of the sum
    power >>= np.uint32(13)
    power -= np.uint32(_EXPONENT)
    out += power.astype(np.uint16)


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


def pairs_to_8_bits(groups: Groups, most: int) -> tuple[Bytes, Floats, Floats]:
    """Groups of 16 without a bias, their quants at most `most` in size (a power of two), as 32 with 8 bits.

    Of two groups that become one, the one with the larger scale keeps its values: the new step is a power of two
    below its scale, 128 steps to `most`. The other moves by at most half a step. Only where the two scales have
    different signs and nearly the same size would 257 levels be needed; there the step is 1/127 longer.
    """
    first, second = (np.ascontiguousarray(groups.scale[i::2]) for i in range(2))
    step: Floats = np.where(np.abs(first) >= np.abs(second), first, second)
    step *= np.float32(most / 128)
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step != 0)
    tight = np.minimum(first * inverse, second * inverse) * most < -127
    step[tight] *= np.float32(128 / 127)
    inverse[tight] *= np.float32(127 / 128)
    ratio = groups.scale * np.repeat(inverse, 2)
    levels = np.multiply(groups.quants, ratio.reshape(-1, 1))
    np.rint(levels, out=levels)
    quants = levels.astype(np.int8).view(np.uint8)
    quants ^= np.uint8(0x80)  # flipping the sign bit adds 128
    return quants.reshape(-1, GROUP_SIZE), step, np.float32(-128) * step


def _extremes(values: Floats) -> tuple[Floats, Floats]:
    """Least and greatest of each group, by halving: numpy's own reduction of short rows is several times slower."""
    half = GROUP_SIZE // 2
    low = np.minimum(values[:, :half], values[:, half:]).reshape(-1)
    high = np.maximum(values[:, :half], values[:, half:]).reshape(-1)
    while half > 1:
        low, high, half = np.minimum(low[::2], low[1::2]), np.maximum(high[::2], high[1::2]), half // 2
    return low, high
