"""The tensors of an MLX folder as the parameters of a GGUF's model: which is which, and in what form.

Rows of a folder lie in MLX's order. How a matrix is quantized is read from the shapes of its parts, as mlx-lm does it:
layers may differ, and what config.json says of all of them need not hold for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import InvalidModelError, UnsupportedModelError
from localllm.weights.affine import Floats, unpack
from localllm.weights.architectures import architecture_of
from localllm.weights.gguf import GGUFFile
from localllm.weights.mlx_folder import ModelFolder, StoredTensor
from localllm.weights.names import EMBEDDING, OUTPUT, Slot, find, modules

PAIR_HINT = "Give --model the GGUF that was made of the same weights as the folder."
BITS, GROUP_SIZES = (2, 3, 4, 5, 6, 8), (32, 64, 128)
_FLOATS = ("F32", "F16", "BF16")
_VOCABULARY = (f"{EMBEDDING}.weight", f"{OUTPUT}.weight")
"""Their rows are tokens, and a folder may have more of them than its model knows."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model as a folder stores it."""

    slot: Slot
    """Where it lies in the GGUF, and its shape."""
    weight: StoredTensor
    scales: StoredTensor | None = None
    biases: StoredTensor | None = None
    group_size: int = 0
    bits: int = 0
    """Of a quantized one."""

    @property
    def stored(self) -> list[StoredTensor]:
        """All parts."""
        return [part for part in (self.weight, self.scales, self.biases) if part]

    @property
    def bits_per_weight(self) -> float:
        """With scales and biases."""
        return 8 * sum(part.nbytes for part in self.stored) / prod((*self.weight.shape[:-1], self.slot.shape[-1]))

    def rows(self, chosen: NDArray[np.intp]) -> Floats:
        """Some rows as float32, (rows, in); those of experts are counted through, and a vector is one row."""
        weight, *parts = (_rows(part, chosen) for part in self.stored)
        if not parts:
            return weight
        scales, biases = (part[..., None] for part in parts)
        quants = unpack(weight, self.bits).reshape(len(chosen), -1, self.group_size).astype(np.float32)
        return np.asarray((quants * scales + biases).reshape(len(chosen), -1))


def match(folder: ModelFolder, file: GGUFFile) -> dict[str, Parameter]:
    """The folder's parameters by their path in MLX: all that the GGUF has, and no others.

    Raises InvalidModelError naming a tensor that is missing, left over or of another shape.
    """
    names = [name for name in folder.tensors if not _is_part(folder, name) and not _is_unused(file, name)]
    slots = {name: _slot(folder, file, name) for name in names}
    wanted = [f"{path}.weight" for path in modules(file)]
    used = {slot.tensor for slot in slots.values()} | set(architecture_of(file).unused)
    missing = [name for name in wanted if name not in slots] or sorted(set(file.tensors) - used)
    if missing:
        raise InvalidModelError(f"{folder.path} lacks {missing[0]}, which {file.path.name} has.", PAIR_HINT)
    return {name: _parameter(folder, file, name, slot) for name, slot in slots.items()}


def padding(parameters: Mapping[str, Parameter]) -> int:
    """How many more tokens the folder has rows for than the GGUF; their rows are left out."""
    embedding = parameters[_VOCABULARY[0]]
    return embedding.weight.shape[0] - embedding.slot.shape[0]


def held_bytes(parameters: Mapping[str, Parameter], residence: str) -> int:
    """Bytes of all of them as a training process holds them (see tune.device.Residence).

    "float32": 4 for each weight. Otherwise the words of quantized ones, whose scales and biases have 16 bits or,
    "streamed", 32, and 16 bits for each other weight; "streamed" leaves float32 matrices and vectors as they are.
    """
    total, streamed = 0, residence == "streamed"
    for parameter in parameters.values():
        weights = prod(parameter.slot.shape)
        if residence == "float32" or (not parameter.bits and streamed and _stays_float(parameter)):
            total += 4 * weights
        elif parameter.bits:
            total += weights * parameter.bits // 8 + 2 * weights // parameter.group_size * (4 if streamed else 2)
        else:
            total += 2 * weights
    return total


def most_while_loading(parameters: Mapping[str, Parameter]) -> int:
    """Bytes of the largest after the embeddings, which are read first: float32 values and what they are made of."""
    later = [p for name, p in parameters.items() if name != _VOCABULARY[0]]
    return max((4 * prod(p.slot.shape) + sum(part.nbytes for part in p.stored) for p in later), default=0)


def _stays_float(parameter: Parameter) -> bool:
    return parameter.weight.dtype == "F32" or len(parameter.slot.shape) != 2


def _is_part(folder: ModelFolder, name: str) -> bool:
    path, _, kind = name.rpartition(".")
    return kind in ("scales", "biases") and f"{path}.weight" in folder.tensors


def _is_unused(file: GGUFFile, name: str) -> bool:
    """What mlx-lm drops too: an output that is the embedding again, and positions written out."""
    tied = name.startswith(f"{OUTPUT}.") and "output.weight" not in file.tensors
    return tied or name.endswith("rotary_emb.inv_freq")


def _slot(folder: ModelFolder, file: GGUFFile, name: str) -> Slot:
    try:
        slot = find(file, name)
    except UnsupportedModelError:  # no name of this architecture
        slot = None
    if slot is None:
        raise InvalidModelError(f"{folder.path} holds {name}, which {file.path.name} does not have.", PAIR_HINT)
    return slot


def _parameter(folder: ModelFolder, file: GGUFFile, name: str, slot: Slot) -> Parameter:
    weight, path = folder.tensors[name], name.removesuffix("weight")
    scales, biases = (folder.tensors.get(f"{path}{kind}") if name != path else None for kind in ("scales", "biases"))
    found = Parameter(slot, weight)
    if scales or biases:
        found = _quantized(folder, name, slot, weight, scales, biases)
    _check_shape(folder, file, name, found)
    return found


def _quantized(
    folder: ModelFolder,
    name: str,
    slot: Slot,
    weight: StoredTensor,
    scales: StoredTensor | None,
    biases: StoredTensor | None,
) -> Parameter:
    """Raises UnsupportedModelError for what are no affine groups."""
    parts = [part for part in (weight, scales, biases) if part and len(part.shape) == len(slot.shape) > 1]
    if (
        scales is None or biases is None or len(parts) < 3 or weight.dtype != "U32"
        or {scales.dtype, biases.dtype} - set(_FLOATS)
    ):  # fmt: skip
        raise UnsupportedModelError(f"{folder.path}: {name} is not quantized in MLX's affine groups.")
    columns = slot.shape[-1]
    bits, odd = divmod(32 * weight.shape[-1], columns)
    group_size, uneven = divmod(columns, max(1, scales.shape[-1]))
    if odd or uneven or scales.shape != biases.shape or scales.shape[:-1] != weight.shape[:-1]:
        shapes = f"{weight.shape}, {scales.shape} and {biases.shape}"
        raise InvalidModelError(f"{folder.path}: {name} has parts of the shapes {shapes}, not for {slot.shape}.")
    if bits not in BITS or group_size not in GROUP_SIZES:
        raise UnsupportedModelError(
            f"{folder.path}: {name} has {bits} bits in groups of {group_size}.",
            f"MLX's are {', '.join(map(str, BITS))} bits in groups of {', '.join(map(str, GROUP_SIZES))}.",
        )
    return Parameter(slot, weight, scales, biases, group_size, bits)


def _check_shape(folder: ModelFolder, file: GGUFFile, name: str, found: Parameter) -> None:
    wanted, whole, dtype = found.slot.shape, found.weight.shape, found.weight.dtype
    if not found.bits and dtype not in _FLOATS:
        raise UnsupportedModelError(
            f"{folder.path}: {name} has the dtype {dtype}.", "Convert the model again with `mlx_lm.convert`."
        )
    shape = (*whole[:-1], wanted[-1]) if found.bits else whole
    if name in _VOCABULARY and len(shape) == 2 and shape[0] > wanted[0]:
        shape = (wanted[0], shape[1])
    if shape != wanted:
        raise InvalidModelError(
            f"{folder.path}: {name} has the shape {shape}, and {wanted} in {file.path.name}.", PAIR_HINT
        )


def _rows(part: StoredTensor, chosen: NDArray[np.intp]) -> NDArray[Any]:
    """Some rows of a part as float32, or as words."""
    values = part.mapped().reshape(-1, part.shape[-1])[chosen]
    if part.dtype == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32) if part.dtype == "F16" else values
