"""Adapters as GGUF LoRAs, the form that llama.cpp attaches to the base without merging, and back.

llama.cpp (llama-adapter.cpp, llama-graph.cpp) wants, for a base tensor T, and multiplies with adapter.lora.alpha / rank
of that pair:

    linear      T.lora_a (rank, in)           T.lora_b (out, rank): both transposed against MLX's
    experts     T.lora_a (experts, rank, in)  T.lora_b (experts, out, rank): as MLX has them
    embedding   T.lora_a (vocabulary, rank)   T.lora_b (width, rank): only B is transposed

Where GGUF permutes the rows of the base, those of B are permuted with them. Where it has q, k and v in one tensor, the
A of all three are stacked and their B become the blocks of a diagonal.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from localllm.errors import AdapterError, AdapterMismatchError
from localllm.weights.adapter import Adapter, from_scaled, matrix_shape, rescaled
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.names import EMBEDDING, OUTPUT, Slot, modules
from localllm.weights.quant import dequantize, read_blocks
from localllm.weights.safetensors import Matrix

Metadata = Mapping[str, str | int | float | bool]
Part = tuple[str, Slot]


def check_fit(adapter: Adapter, base: GGUFFile) -> dict[str, Slot]:
    """Where each layer of the adapter lies in the base.

    Raises AdapterMismatchError naming the module, and both shapes, for one that the base lacks or has in another shape.
    """
    slots = modules(base)
    for path, (a, b) in adapter.layers.items():
        shape = matrix_shape(path, a, b)
        if path not in slots:
            tied = " (its output is its token embedding)" if path == OUTPUT else ""
            raise AdapterMismatchError(f"The adapter changes {path}, which {base.path} does not have{tied}.")
        if shape != slots[path].shape:
            raise AdapterMismatchError(
                f"The adapter's {path} is for a matrix of {shape}, but {slots[path].tensor} of {base.path} has "
                f"{slots[path].shape}."
            )
    return {path: slots[path] for path in adapter.layers}


def shares_output(adapter: Adapter, base: GGUFFile) -> bool:
    """Whether the adapter changes an embedding that is the output too: attached, it aborts llama.cpp."""
    return EMBEDDING in adapter.layers and OUTPUT not in modules(base)


def gguf_tensors(adapter: Adapter, base: GGUFFile, *, attached: bool = True) -> dict[str, Matrix]:
    """The adapter's tensors by GGUF name and in GGUF's orientation, row order and scale.

    Raises AdapterMismatchError naming the tensor and both shapes where the adapter does not fit the base, and
    AdapterError for one on the embedding of a base that shares it with its output, unless it is only to be merged
    (not `attached`).
    """
    slots = check_fit(adapter, base)
    if attached and shares_output(adapter, base):
        message = f"The adapter changes the token embedding, which {base.path.name} shares with its output."
        raise AdapterError(message, "llama.cpp cannot attach that: merge it with `localllm export ... --to merged`.")
    parts: defaultdict[str, list[Part]] = defaultdict(list)
    for path, slot in slots.items():
        parts[slot.tensor].append((path, slot))
    tensors: dict[str, Matrix] = {}
    for name, those in parts.items():
        a, b = _stacked(adapter, base, those) if _is_fused(base, those[0][1]) else _single(adapter, *those[0])
        rank = b.shape[-1]
        tensors[f"{name}.lora_a"] = np.ascontiguousarray(a, np.float32)
        tensors[f"{name}.lora_b"] = np.ascontiguousarray(rescaled(b, rank / adapter.rank), np.float32)
    return tensors


def write_gguf(path: Path, adapter: Adapter, base: GGUFFile, metadata: Metadata, *, attached: bool = True) -> None:
    """Write a GGUF LoRA for `base`, beside its final name and then renamed.

    `metadata` holds what else it says of itself, under keys that begin with "general." or "localllm.". Raises as
    `gguf_tensors` does.
    """
    import gguf

    tensors = gguf_tensors(adapter, base, attached=attached)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    writer = gguf.GGUFWriter(part, base.architecture)
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.alpha)
        for key, value in metadata.items():
            _add(writer, key, value)
        for name, tensor in tensors.items():
            writer.add_tensor(name, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_gguf(path: Path, base: GGUFFile) -> Adapter:
    """Read a GGUF LoRA as ours. Its header must have been checked (engine.adapters.check_adapter).

    A pair on a fused attn_qkv comes back as three layers. Raises AdapterMismatchError for tensors that are no module of
    the base, and AdapterError for values that are not finite.
    """
    file = read_header(path)
    slots = modules(base)
    alpha = float(file.metadata.get("adapter.lora.alpha", 0.0))  # type: ignore[arg-type]
    layers: dict[str, tuple[Matrix, Matrix, float]] = {}
    for name in (n.removesuffix(".lora_b") for n in file.tensors if n.endswith(".lora_b")):
        those = [(p, slot) for p, slot in slots.items() if slot.tensor == name]
        if not those:
            raise AdapterMismatchError(
                f"{path} changes {name}, which is not a matrix of {base.path} that localllm knows."
            )
        a, b = (_dequantized(file, f"{name}.{half}") for half in ("lora_a", "lora_b"))
        scale = alpha / b.shape[-1] if alpha else 1.0  # as llama.cpp does (llama_adapter_lora_weight::get_scale)
        for module, slot in those:
            pair = _from_gguf(module, slot, a, b, fused=_is_fused(base, slot))
            if pair[0].shape[1]:  # else this part of a fused matrix is not changed
                layers[module] = (*pair, scale)
    return from_scaled(layers)


def _is_fused(base: GGUFFile, slot: Slot) -> bool:
    """Whether the tensor holds more than this module."""
    return base.tensors[slot.tensor].shape != slot.shape


def _single(adapter: Adapter, path: str, slot: Slot) -> tuple[Matrix, Matrix]:
    """A and B as GGUF has them."""
    a, b = adapter.layers[path]
    if a.ndim == 3:
        return a, b if slot.order is None else b[:, slot.order]
    rows = b.T if slot.order is None else b.T[slot.order]
    return (a if path == EMBEDDING else a.T), rows


def _stacked(adapter: Adapter, base: GGUFFile, parts: list[Part]) -> tuple[Matrix, Matrix]:
    """The modules of one fused tensor: stacked A, and B with the blocks of a diagonal."""
    singles = [(*_single(adapter, path, slot), slot.rows) for path, slot in parts]
    ranks = [a.shape[0] for a, _, _ in singles]
    both = np.zeros((base.tensors[parts[0][1].tensor].shape[0], sum(ranks)), np.float32)
    column = 0
    for (_, b, rows), rank in zip(singles, ranks, strict=True):
        both[rows, column : column + rank] = b
        column += rank
    return np.concatenate([a for a, _, _ in singles]), both


def _from_gguf(path: str, slot: Slot, a: Matrix, b: Matrix, fused: bool) -> tuple[Matrix, Matrix]:
    """One module's A and B as MLX has them; of a fused pair only the ranks that reach its rows."""
    b = b[..., slot.rows, :]
    if fused:
        used = np.flatnonzero(b.any(axis=0))
        a, b = a[used], b[:, used]
    if slot.order is not None:
        b = b[..., np.argsort(slot.order), :]
    if a.ndim == 3:
        return a, b
    return (a if path == EMBEDDING else a.T), b.T


def _dequantized(file: GGUFFile, name: str) -> Matrix:
    info = file.tensors[name]
    return dequantize(read_blocks(file, info), info.type, info.shape).astype(np.float32)


def _add(writer: object, key: str, value: str | int | float | bool) -> None:
    kinds = {bool: "add_bool", int: "add_int64", float: "add_float64", str: "add_string"}
    getattr(writer, kinds[type(value)])(key, value)
