"""Some layers of a model as a smaller model with float32 weights, and an adapter cut to fit it.

On float32 weights llama.cpp rounds nothing, so that what is left between two programs is their own difference.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from math import prod
from pathlib import Path

from localllm.weights.entries import NewValue, Typed
from localllm.weights.ggml import BY_NAME
from localllm.weights.gguf import GGUFFile, TensorInfo
from localllm.weights.quant import dequantize, read_blocks
from localllm.weights.writer import Replacement, copy_gguf

_LAYER = re.compile(r"blk\.(\d+)\.")
_CHUNK = 1 << 22  # weights made float32 at a time


def layer_of(tensor: str) -> int | None:
    """The layer that a tensor, or an adapter's matrix, belongs to."""
    found = _LAYER.match(tensor)
    return int(found.group(1)) if found else None


def choose_layers(file: GGUFFile, wanted: Collection[int], limit: int) -> list[int]:
    """As many layers as fit into `limit` bytes of float32, at least one: all, or those of `wanted`, spread evenly."""
    every = sorted({layer for name in file.tensors if (layer := layer_of(name)) is not None})
    rest = float_size(file, [])
    largest = max(float_size(file, [layer]) - rest for layer in every)
    room = max(1, (limit - rest) // largest)
    if room >= len(every):
        return every
    chosen = sorted(set(wanted) & set(every)) or every
    step = max(1.0, len(chosen) / room)
    return [chosen[int(i * step)] for i in range(min(room, len(chosen)))]


def float_size(file: GGUFFile, layers: Collection[int] | None = None) -> int:
    """Bytes that the tensors of an excerpt, or of the whole model, take as float32."""
    kept = [t for t in file.tensors.values() if layers is None or layer_of(t.name) in (None, *layers)]
    return sum(4 * prod(t.shape) for t in kept)


def write_excerpt(file: GGUFFile, target: Path, layers: list[int], cancel: threading.Event | None = None) -> None:
    """Write a model of these layers, in this order, all of its weights float32. Raises StorageError, CancelledError."""
    kept = [info for info in file.tensors.values() if layer_of(info.name) in (None, *layers)]
    changed = {info.name: Replacement("F32", info.shape, partial(_floats, file, info)) for info in kept}
    copy_gguf(
        file, target, changed=changed, metadata=_metadata(file, layers), keep=lambda info: info.name in changed,
        rename=partial(_renamed, layers), cancel=cancel,
    )  # fmt: skip


def write_adapter_excerpt(adapter: GGUFFile, target: Path, layers: list[int]) -> None:
    """Write the part of a GGUF adapter that is for these layers, its matrices byte for byte."""
    copy_gguf(
        adapter, target, keep=lambda info: layer_of(info.name) in (None, *layers), rename=partial(_renamed, layers)
    )


def _renamed(layers: list[int], name: str) -> str:
    layer = layer_of(name)
    return name if layer is None else _LAYER.sub(f"blk.{layers.index(layer)}.", name, count=1)


def _metadata(file: GGUFFile, layers: list[int]) -> dict[str, NewValue | None]:
    """The number of layers, and of what is said for each layer only the part for these."""
    prefix, before = file.architecture, file.metadata[f"{file.architecture}.block_count"]
    changes: dict[str, NewValue | None] = {f"{prefix}.block_count": Typed("u32", len(layers))}
    for key, value in file.metadata.items():
        if key.startswith(f"{prefix}.") and not isinstance(value, int | float | str) and len(value) == before:
            items = [value[layer] for layer in layers]
            changes[key] = Typed(_element_type(value), items)
    return changes


def _element_type(values: object) -> str:
    codes = {"B": "bool", "b": "i8", "H": "u16", "h": "i16", "I": "u32", "i": "i32", "f": "f32", "d": "f64"}
    return codes.get(getattr(values, "typecode", ""), "string")


def _floats(file: GGUFFile, info: TensorInfo) -> Iterator[memoryview]:
    blocks, width = read_blocks(file, info), info.shape[-1]
    per_row = width // BY_NAME[info.type].weights
    rows = max(1, _CHUNK // width)
    for first in range(0, len(blocks), rows * per_row):
        part = blocks[first : first + rows * per_row]
        values = dequantize(part, info.type, (len(part) // per_row, width))
        yield values.data.cast("B")


def touched_layers(names: Iterable[str]) -> list[int]:
    """Layers that a GGUF adapter's tensors are for."""
    return sorted({layer for name in names if (layer := layer_of(name)) is not None})
