"""Our adapter as a GGUF LoRA, the form that llama.cpp attaches to the base without merging.

llama.cpp (llama-adapter.cpp) wants `<base tensor>.lora_a` (rank, in) and `.lora_b` (out, rank), and multiplies with
adapter.lora.alpha / rank. Both are transposed against MLX's, and where GGUF permutes the rows of the base (q and k of
the llama architecture) the rows of B are permuted with them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from localllm.errors import AdapterMismatchError
from localllm.weights.adapter import Adapter, Matrix
from localllm.weights.gguf import GGUFFile
from localllm.weights.names import gguf_name, row_order

Metadata = Mapping[str, str | int | float | bool]


def gguf_tensors(adapter: Adapter, base: GGUFFile) -> dict[str, Matrix]:
    """The adapter's tensors by GGUF name and in GGUF's orientation and row order.

    Raises AdapterMismatchError naming the tensor and both shapes where the adapter does not fit the base.
    """
    tensors: dict[str, Matrix] = {}
    for path, (a, b) in adapter.layers.items():
        name = gguf_name(base, f"{path}.weight")
        shape = base.tensors[name].shape if name in base.tensors else None
        if shape != (b.shape[1], a.shape[0]):
            raise AdapterMismatchError(
                f"The adapter's {path} is for a matrix of {(b.shape[1], a.shape[0])}, but {name} of {base.path} has "
                f"{shape or 'no such tensor'}."
            )
        order = row_order(base, f"{path}.weight")
        rows = b.T if order is None else b.T[order]
        tensors[f"{name}.lora_a"] = np.ascontiguousarray(a.T, np.float32)
        tensors[f"{name}.lora_b"] = np.ascontiguousarray(rows, np.float32)
    return tensors


def write_gguf(path: Path, adapter: Adapter, base: GGUFFile, metadata: Metadata) -> None:
    """Write a GGUF LoRA for `base`, beside its final name and then renamed.

    `metadata` holds what else it says of itself, under keys that begin with "general." or "localllm.".
    """
    import gguf

    tensors = gguf_tensors(adapter, base)
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


def _add(writer: object, key: str, value: str | int | float | bool) -> None:
    kinds = {bool: "add_bool", int: "add_int64", float: "add_float64", str: "add_string"}
    getattr(writer, kinds[type(value)])(key, value)
