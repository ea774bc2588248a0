"""What the blocks of each ggml type hold: small whole numbers in groups, each group with a scale and perhaps an offset.

A weight is scale * q, or scale * q + bias. Layouts are those of ggml-common.h; the order of the weights and the packing
of the scales are those of `dequantize_row_*` in ggml-quants.c. Groups are of consecutive weights of a row.

    type    group  quants          scale        bias       how the quants lie
    Q4_0    32     0 to 15         d            -8 d       16 bytes: low nibbles, then high nibbles
    Q4_1    32     0 to 15         d            m          the same
    Q5_0    32     0 to 31         d            -16 d      the same, with the fifth bits in a 32-bit word
    Q5_1    32     0 to 31         d            m          the same
    Q8_0    32     0 to 255        d            -128 d     32 signed bytes, here q + 128
    Q4_K    32     0 to 15         d sc_j       -dmin m_j  8 groups; sc_j and m_j have 6 bits, packed into 12 bytes
    Q5_K    32     0 to 31         d sc_j       -dmin m_j  the same, with the fifth bits in 32 bytes
    Q6_K    16     -32 to 31       d sc_j                  low nibbles in 128 bytes, two high bits in 64
    Q3_K    16     -4 to 3         d sc_j                  two low bits in 64 bytes, the third in 32; sc_j has 6 bits
    Q2_K    16     0 to 3          d sc_j       -dmin m_j  two bits in 64 bytes; sc_j and m_j share a byte
    IQ4_NL  32     -127 to 113     d                       as Q4_0, the nibble being a place in a table
    IQ4_XS  32     -127 to 113     d sc_j                  8 such groups; sc_j has 6 bits
    MXFP4   32     -12 to 12       2**(e-128)              as Q4_0, with another table; e is a byte

Every product of a scale's parts, and every product with a quant, is done in float32 in the order of ggml, so the values
are ggml's own. Each function works on whole arrays: n blocks at a time, without a loop over them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from localllm.weights.affine import Bytes, Floats

_IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)  # kvalues_iq4nl
_FP4 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)  # kvalues_mxfp4


class Groups(NamedTuple):
    """The contents of blocks, in the order of their weights."""

    quants: NDArray[np.uint8] | NDArray[np.int8]
    """(groups, 16 or 32)"""
    scale: Floats
    """(groups,)"""
    bias: Floats | None = None
    """(groups,); None stands for zero"""


def _half(blocks: Bytes, start: int) -> Floats:
    """The float16 at byte `start` of each block, (n,)."""
    return np.ascontiguousarray(blocks[:, start : start + 2]).view(np.float16).astype(np.float32).reshape(-1)


def _words(blocks: Bytes, start: int, stop: int) -> list[NDArray[np.uint32]]:
    """Those bytes as 32-bit words: for each word its column, (n,)."""
    words = np.ascontiguousarray(blocks[:, start:stop]).view(np.uint32)
    return [np.ascontiguousarray(words[:, i]) for i in range(words.shape[1])]


def _bytes_of(*words: NDArray[np.uint32]) -> Bytes:
    """Columns of 32-bit words side by side, as the bytes (n, 4 * words) in them."""
    return np.stack(words, axis=1).view(np.uint8)


def _shifted(bits: Bytes, left: int, mask: int) -> Bytes:
    """Each byte shifted left (right, if negative) and masked, eight at once; `mask` leaves out what crosses over."""
    eights = bits.view(np.uint64)
    moved = eights << np.uint64(left) if left >= 0 else eights >> np.uint64(-left)
    moved &= np.uint64(mask * 0x0101010101010101)
    return moved.view(np.uint8)


def _woven(*parts: Bytes) -> Bytes:
    """Arrays (n, k, width), a run of each in turn: (n, k, parts, width). Runs are copied as single items, not bytes."""
    n, k, width = parts[0].shape
    out = np.empty((n, k, len(parts), width), np.uint8)
    items = out.view(f"V{width}")
    for i, part in enumerate(parts):
        items[:, :, i] = part.view(f"V{width}")
    return out


def _nibbles(packed: Bytes, width: int = 16) -> Bytes:
    """(n, k) bytes -> (n, k / width, 2, width): of each run of `width` bytes the low nibbles, then the high ones."""
    runs = np.ascontiguousarray(packed).reshape(len(packed), -1, width)
    return _woven(_shifted(runs, 0, 15), _shifted(runs, -4, 15))


def _fifth_bits(words: Bytes) -> Bytes:
    """(n, 4) bytes -> (n, 32): each bit, moved to where it counts 16."""
    return _shifted(np.unpackbits(np.ascontiguousarray(words), axis=1, bitorder="little"), 4, 16)


def _q4_0(blocks: Bytes) -> Groups:
    d = _half(blocks, 0)
    return Groups(_nibbles(blocks[:, 2:]).reshape(-1, 32), d, -8 * d)


def _q4_1(blocks: Bytes) -> Groups:
    return Groups(_nibbles(blocks[:, 4:]).reshape(-1, 32), _half(blocks, 0), _half(blocks, 2))


def _q5_0(blocks: Bytes) -> Groups:
    d = _half(blocks, 0)
    return Groups(_nibbles(blocks[:, 6:]).reshape(-1, 32) | _fifth_bits(blocks[:, 2:6]), d, -16 * d)


def _q5_1(blocks: Bytes) -> Groups:
    quants = _nibbles(blocks[:, 8:]).reshape(-1, 32) | _fifth_bits(blocks[:, 4:8])
    return Groups(quants, _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Bytes) -> Groups:
    d = _half(blocks, 0)
    return Groups(blocks[:, 2:] ^ np.uint8(0x80), d, -128 * d)  # flipping the sign bit adds 128


def _k_scales(blocks: Bytes) -> tuple[Floats, Floats]:
    """Scale and bias of the 8 groups of each Q4_K or Q5_K block, (8 n,) each: get_scale_min_k4, four bytes at once."""
    low, middle, mixed = _words(blocks, 4, 16)
    six, four, two = np.uint32(0x3F3F3F3F), np.uint32(0x0F0F0F0F), np.uint32(0x30303030)
    sc = _bytes_of(low & six, (mixed & four) | (low >> np.uint32(2) & two))
    m = _bytes_of(middle & six, (mixed >> np.uint32(4) & four) | (middle >> np.uint32(2) & two))
    scale = sc.astype(np.float32) * _half(blocks, 0)[:, None]
    bias = m.astype(np.float32) * -_half(blocks, 2)[:, None]
    return scale.reshape(-1), bias.reshape(-1)


def _q4_k(blocks: Bytes) -> Groups:
    return Groups(_nibbles(blocks[:, 16:], 32).reshape(-1, 32), *_k_scales(blocks))


def _q5_k(blocks: Bytes) -> Groups:
    quants = _nibbles(blocks[:, 48:], 32).reshape(-1, 32)
    high = np.ascontiguousarray(blocks[:, None, 16:48])
    # bit j of each byte belongs to group j; it counts 16
    quants |= _woven(*(_shifted(high, 4 - group, 16) for group in range(8))).reshape(-1, 32)
    return Groups(quants, *_k_scales(blocks))


def _q6_k(blocks: Bytes) -> Groups:
    quants = _nibbles(blocks[:, :128], 64).reshape(-1, 32)
    high = np.ascontiguousarray(blocks[:, 128:192]).reshape(-1, 2, 32)
    quants |= _woven(*(_shifted(high, 4 - 2 * quarter, 0x30) for quarter in range(4))).reshape(-1, 32)
    quants -= np.uint8(32)  # wraps to the bits of the signed number
    scale = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32) * _half(blocks, 208)[:, None]
    return Groups(quants.view(np.int8).reshape(-1, 16), scale.reshape(-1))


def _crumbs(packed: Bytes) -> Bytes:
    """(n, 64) bytes -> (n, 2, 4, 32): of each 32 bytes the lowest two bits, then the next two, and so on."""
    halves = np.ascontiguousarray(packed).reshape(-1, 2, 32)
    return _woven(*(_shifted(halves, -2 * quarter, 3) for quarter in range(4)))


def _q3_k(blocks: Bytes) -> Groups:
    quants = _crumbs(blocks[:, 32:96]).reshape(-1, 32)
    high = np.ascontiguousarray(blocks[:, None, :32])
    # bit j of each byte belongs to group j; where it is absent, 4 is taken away
    quants |= _woven(*(_shifted(high, 2 - group, 4) for group in range(8))).reshape(-1, 32)
    quants -= np.uint8(4)
    first, second, two = _words(blocks, 96, 108)
    four, mask = np.uint32(0x0F0F0F0F), np.uint32(0x30303030)
    low = (first & four, second & four, first >> np.uint32(4) & four, second >> np.uint32(4) & four)
    high_bits = (two << np.uint32(4), two << np.uint32(2), two, two >> np.uint32(2))
    six_bits = _bytes_of(*(a | b & mask for a, b in zip(low, high_bits, strict=True)))
    scale = (six_bits - np.uint8(32)).view(np.int8).astype(np.float32) * _half(blocks, 108)[:, None]
    return Groups(quants.view(np.int8).reshape(-1, 16), scale.reshape(-1))


def _q2_k(blocks: Bytes) -> Groups:
    both = np.ascontiguousarray(blocks[:, :16])
    scale = (both & np.uint8(15)).astype(np.float32) * _half(blocks, 80)[:, None]
    bias = (both >> np.uint8(4)).astype(np.float32) * -_half(blocks, 82)[:, None]
    return Groups(_crumbs(blocks[:, 16:80]).reshape(-1, 16), scale.reshape(-1), bias.reshape(-1))


def _iq4_nl(blocks: Bytes) -> Groups:
    return Groups(_IQ4[_nibbles(blocks[:, 2:])].reshape(-1, 32), _half(blocks, 0))


def _iq4_xs(blocks: Bytes) -> Groups:
    low = _nibbles_in_turn(blocks[:, 4:8])
    high = np.ascontiguousarray(blocks[:, 2:4]).view(np.uint16)
    high = (high >> np.arange(0, 16, 2, dtype=np.uint16) & np.uint16(3)).astype(np.uint8) << np.uint8(4)
    scale = ((low | high) - np.uint8(32)).view(np.int8).astype(np.float32) * _half(blocks, 0)[:, None]
    return Groups(_IQ4[_nibbles(blocks[:, 8:])].reshape(-1, 32), scale.reshape(-1))


def _nibbles_in_turn(packed: Bytes) -> Bytes:
    """(n, k) bytes -> (n, 2 k): the low and the high nibble of each byte."""
    return np.stack([packed & np.uint8(15), packed >> np.uint8(4)], axis=2).reshape(len(packed), -1)


def _mxfp4(blocks: Bytes) -> Groups:
    e = blocks[:, 0].astype(np.uint32)
    # ggml_e8m0_to_fp32_half: the bits of 2**(e-128); the two smallest are subnormal
    bits = np.where(e < 2, np.uint32(0x00200000) << e, (e - np.uint32(1)) << np.uint32(23))
    return Groups(_FP4[_nibbles(blocks[:, 1:])].reshape(-1, 32), bits.astype(np.uint32).view(np.float32))


UNPACK: dict[str, Callable[[Bytes], Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "Q3_K": _q3_k,
    "Q2_K": _q2_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
}
"""Blocks (n, bytes of a block) -> what they hold."""


def values(groups: Groups, out: Floats | None = None) -> Floats:
    """What groups stand for, (groups, 16 or 32): scale * q + bias in float32, the bias left out where there is none.

    They are written to `out`, if given: contiguous, and of any shape that holds as many.
    """
    target = np.empty(groups.quants.shape, np.float32) if out is None else out.reshape(groups.quants.shape)
    target[...] = groups.quants
    target *= groups.scale[:, None]
    if groups.bias is not None:
        target += groups.bias[:, None]
    return target
