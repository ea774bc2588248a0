"""What each tensor of a GGUF becomes for MLX: affine groups or floats as they are, and a choice for the other types.

"16bit"  float16: exact to its rounding.
"8bit"   affine groups of 32 with 8 bits and a float32 scale and bias: 10 bits a weight in all, exact to half a
         step, a step being 1/255 of a group's range; IQ4_NL, IQ4_XS and MXFP4 lose nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from localllm.errors import UnsupportedModelError
from localllm.weights.gguf import GGUFFile, TensorInfo
from localllm.weights.quant import (
    AFFINE,
    EXACT_IN_8_BITS,
    GROUP_SIZE,
    Affine,
    Bytes,
    dequantize,
    halve,
    read_blocks,
    repack,
    repack8,
)  # fmt: skip

Other = Literal["16bit", "8bit"]
OTHERS: tuple[Other, ...] = ("16bit", "8bit")
Form = Literal["affine", "float32", "float16", "bfloat16", "integers", "nothing"]
Data = Affine | NDArray[Any]

_PLAIN: dict[str, tuple[Form, type[np.generic]]] = {
    "F32": ("float32", np.float32),
    "F16": ("float16", np.float16),
    "BF16": ("bfloat16", np.uint16),  # numpy has no bfloat16: these are its bits
    "I8": ("integers", np.int8),
    "I16": ("integers", np.int16),
    "I32": ("integers", np.int32),
    "I64": ("integers", np.int64),
}
_NO_MATRIX = frozenset({"Q8_1", "Q8_K", "Q1_0"})
"""Types that ggml keeps for its own activations, and one that nothing here can dequantize."""


@dataclass(frozen=True)
class Becomes:
    """What a tensor is for MLX."""

    form: Form
    bits: int
    """Bits of a weight, without scales and biases."""
    exact: bool
    """Whether every weight keeps its value."""

    def __str__(self) -> str:
        if self.form == "nothing":
            return "not supported"
        name = f"affine {self.bits}-bit" if self.form == "affine" else self.form
        return f"{name}, {'exact' if self.exact else 'rounded'}"

    def nbytes(self, weights: int) -> int:
        """Bytes of that many weights; each affine group has a float32 scale and bias."""
        return weights * self.bits // 8 + (weights // GROUP_SIZE * 8 if self.form == "affine" else 0)


class Converted(NamedTuple):
    """A tensor as MLX will have it."""

    info: TensorInfo
    becomes: Becomes
    data: Data
    """An Affine, or an array of info.shape; bfloat16 as uint16, because numpy has none."""


def becomes(kind: str, other: Other = "16bit") -> Becomes:
    """What a tensor of that ggml type becomes; `other` chooses for what is neither affine nor plain."""
    if kind in AFFINE:
        return Becomes("affine", AFFINE[kind], exact=True)
    if kind in _PLAIN:
        form, dtype = _PLAIN[kind]
        return Becomes(form, np.dtype(dtype).itemsize * 8, exact=True)
    if kind == "F64":
        return Becomes("float32", 32, exact=False)
    if kind in _NO_MATRIX:
        return Becomes("nothing", 0, exact=False)
    if other == "8bit":
        return Becomes("affine", 8, exact=kind in EXACT_IN_8_BITS)
    return Becomes("float16", 16, exact=False)


def convert(file: GGUFFile, other: Other = "16bit") -> Iterator[Converted]:
    """Every tensor of the file as MLX will have it, one at a time, in the file's order.

    Raises UnsupportedModelError at a tensor that cannot be converted.
    """
    for info in file.tensors.values():
        yield Converted(info, becomes(info.type, other), convert_blocks(read_blocks(file, info), info, other))


def convert_blocks(blocks: Bytes, info: TensorInfo, other: Other = "16bit") -> Data:
    """The blocks of one tensor as what `becomes` says; plain types are views of them.

    Raises UnsupportedModelError for a type that cannot be dequantized.
    """
    target = becomes(info.type, other)
    if target.form == "nothing":
        raise UnsupportedModelError(f"Tensor {info.name!r} has the type {info.type}, which MLX cannot hold.")
    if info.type in _PLAIN:
        return blocks.reshape(-1).view(_PLAIN[info.type][1]).reshape(info.shape)
    if info.type in AFFINE:
        return repack(blocks, info.type, info.shape)
    if target.form == "affine":
        return repack8(blocks, info.type, info.shape)
    if target.form == "float16":
        return halve(blocks, info.type, info.shape)
    return dequantize(blocks, info.type, info.shape)
