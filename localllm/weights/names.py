"""What MLX and GGUF call the same tensor, and how its rows lie in the file.

Names come from the gguf package's own table, which knows the Hugging Face names that mlx-lm uses. Rows differ where the
converter permuted them, and where it put q, k and v into one matrix (its option --fuse-qkv) that the class has apart.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import InvalidModelError, UnsupportedModelError
from localllm.weights.architectures import architecture_of
from localllm.weights.architectures.base import head_dim, integer
from localllm.weights.gguf import GGUFFile

EMBEDDING, OUTPUT = "model.embed_tokens", "lm_head"


@dataclass(frozen=True)
class Slot:
    """Where an MLX parameter lies in a file."""

    tensor: str
    """Name of the GGUF tensor."""
    shape: tuple[int, ...]
    """Of the parameter: (out, in), with experts (experts, out, in), for a bias or norm (out,)."""
    start: int = 0
    """Its first row in the tensor, which has more rows than the parameter where several are fused."""
    order: NDArray[np.intp] | None = None
    """gguf_rows = mlx_rows[order]; None: they are the same."""

    @property
    def rows(self) -> slice:
        """Its rows in the tensor, along the dimension of the outputs."""
        count = self.shape[-2] if len(self.shape) > 1 else self.shape[0]
        return slice(self.start, self.start + count)


def modules(file: GGUFFile) -> dict[str, Slot]:
    """Every matrix that an adapter can change, by its path in MLX ("model.layers.0.self_attn.q_proj").

    Embedding and output come last; the output only where the file has one of its own.
    """
    entry = architecture_of(file)
    layers = range(integer(file, "block_count"))
    paths = [f"model.layers.{i}.{module}" for i in layers for module in entry.modules]
    paths += [EMBEDDING, OUTPUT] if "output.weight" in file.tensors else [EMBEDDING]
    found = {path: slot for path in paths if (slot := find(file, f"{path}.weight"))}
    if not found:
        raise InvalidModelError(f"{file.path} has none of the matrices of a {file.architecture} model.")
    return found


def find(file: GGUFFile, parameter: str) -> Slot | None:
    """Where an MLX parameter lies; None where the file does not have it (a missing bias, a tied output)."""
    name = gguf_name(file, parameter)
    if name in file.tensors:
        shape = file.tensors[name].shape
        return Slot(name, shape, order=_row_order(file, parameter, shape))
    return _fused(file, parameter, name)


def tensor_names(file: GGUFFile, parameters: Iterable[str]) -> dict[str, Slot]:
    """Slot of each MLX parameter that the file has.

    Raises UnsupportedModelError when tensors of the file are left over.
    """
    found = {parameter: slot for parameter in parameters if (slot := find(file, parameter))}
    used = {slot.tensor for slot in found.values()} | set(architecture_of(file).unused)
    if left := sorted(set(file.tensors) - used):
        listed = ", ".join(left[:5])
        raise UnsupportedModelError(f"{file.path} has tensors that a {file.architecture} model lacks: {listed}.")
    return found


def gguf_name(file: GGUFFile, parameter: str) -> str:
    """GGUF's name for an MLX parameter, whether or not the file has it."""
    hugging_face = parameter
    for ours, theirs in architecture_of(file).aliases.items():
        hugging_face = hugging_face.replace(ours, theirs)
    table = _name_table(file.architecture, integer(file, "block_count"))
    name: str | None = table.get_name(hugging_face, try_suffixes=(".weight", ".bias"))
    if name is None:
        raise UnsupportedModelError(f"GGUF has no name for {parameter} in a {file.architecture} model.")
    return name


def _row_order(file: GGUFFile, parameter: str, shape: tuple[int, ...]) -> NDArray[np.intp] | None:
    """The converter splits the rows of each head in two halves and interleaves them (conversion/llama.py, permute)."""
    module = parameter.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
    key = architecture_of(file).permuted.get(module)
    if key is None:
        return None
    heads = integer(file, key, integer(file, "attention.head_count"))
    rows = shape[-2] if len(shape) > 1 else shape[0]
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def _fused(file: GGUFFile, parameter: str, name: str) -> Slot | None:
    """The part of a fused attn_qkv that is this q, k or v."""
    stem, _, kind = name.rpartition(".")
    block, _, part = stem.rpartition(".")
    fused = file.tensors.get(f"{block}.attn_qkv.{kind}")
    if fused is None or part not in ("attn_q", "attn_k", "attn_v"):
        return None
    heads = integer(file, "attention.head_count")
    query, key = (count * head_dim(file) for count in (heads, integer(file, "attention.head_count_kv", heads)))
    start, rows = {"attn_q": (0, query), "attn_k": (query, key), "attn_v": (query + key, key)}[part]
    shape = (rows, *fused.shape[1:])
    return Slot(fused.name, shape, start, _row_order(file, parameter, shape))


@functools.cache
def _name_table(architecture: str, n_layers: int) -> Any:
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    return gguf.get_tensor_name_map(kinds[architecture], n_layers)
