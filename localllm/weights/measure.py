"""How far a tensor moves when it becomes what MLX can hold: measured on every weight against gguf-py's reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from localllm.errors import UnsupportedModelError
from localllm.weights.affine import Affine, Bytes, Floats
from localllm.weights.chunks import each_chunk
from localllm.weights.convert import Other, becomes, convert_blocks
from localllm.weights.ggml import BY_NAME
from localllm.weights.gguf import GGUFFile, TensorInfo
from localllm.weights.quant import dequantize, read_blocks


class Error(NamedTuple):
    """What was measured over all weights of a tensor."""

    largest_error: float
    """The greatest difference between a weight and what it becomes; not finite if a weight is not, or becomes so."""
    largest_weight: float
    """The greatest absolute value of a weight."""

    @property
    def relative(self) -> float:
        """The error as a part of the largest weight."""
        return self.largest_error / self.largest_weight if self.largest_error else 0.0


@dataclass
class _Peak:
    error: float = 0.0
    weight: float = 0.0


def measure(file: GGUFFile, info: TensorInfo, other: Other = "16bit") -> Error:
    """Convert a tensor piece by piece, on all cores, and compare each piece with the reference.

    Affine groups are taken at MLX's arithmetic, scale * q + bias in float32, from their packed words. A tensor of whole
    numbers has no error. Raises UnsupportedModelError for a type that cannot be converted.
    """
    if becomes(info.type, other).form == "integers":
        return Error(0.0, 0.0)
    blocks, peaks = read_blocks(file, info), list[_Peak]()

    def work(piece: slice) -> None:
        peaks.append(_compare(blocks[piece], info, other))  # appending is atomic

    each_chunk(len(blocks), BY_NAME[info.type].weights, work)
    errors, weights = [peak.error for peak in peaks], [peak.weight for peak in peaks]
    return Error(float(np.max(errors)), float(np.max(weights)))  # np.max, unlike max, keeps what is not a number


def _compare(blocks: Bytes, info: TensorInfo, other: Other) -> _Peak:
    """The peaks of a few blocks, taken as one row."""
    row = TensorInfo(info.name, (1, len(blocks) * BY_NAME[info.type].weights), info.type, 0, blocks.nbytes)
    converted = convert_blocks(blocks, row, other)
    if isinstance(converted, Affine):
        values = converted.values()
    else:
        values = dequantize(blocks, info.type, row.shape) if info.type == "BF16" else converted.astype(np.float32)
    expected = _reference(blocks, info.type).reshape(row.shape)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        return _Peak(float(np.max(np.abs(values - expected))), float(np.max(np.abs(expected))))


def _reference(blocks: Bytes, kind: str) -> Floats:
    """The values by gguf-py, which llama.cpp's authors keep equal to ggml's."""
    if kind == "F64":
        return blocks.reshape(-1).view(np.float64).astype(np.float32)
    import gguf

    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind]), np.float32)
    except (KeyError, NotImplementedError) as error:
        raise UnsupportedModelError(f"Tensors of type {kind} have no reference to compare with.") from error
