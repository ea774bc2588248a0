"""Is the conversion right? Both programs on float32 weights, where llama.cpp rounds nothing.

A copy of the base with float32 weights is made for it, of all layers where that is small enough, else of as many of
those that the adapter changes; the adapter's own matrices are used as they are.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from localllm.tasks.comparing import Pair, compared, work_folder
from localllm.types import Example
from localllm.weights.adapter import GGUF_NAME, Adapter, read_folder, write_folder
from localllm.weights.excerpt import (
    choose_layers,
    float_size,
    touched_layers,
    write_adapter_excerpt,
    write_excerpt,
)
from localllm.weights.gguf import read_header

LIMIT = 4 << 30
"""Bytes of float32 weights that are written for it."""
_PATH = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Conversion:
    """How closely MLX and llama.cpp agree without any rounding. Divergences are means, in nats."""

    layers: int
    """Layers of the copy."""
    of: int
    """Layers of the base."""
    base_kl: float
    kl: float
    """With the adapter."""
    cosine: float
    """Between what the adapter changes in the two."""
    effect_kl: float


def measure(
    pair: Pair, sequences: Sequence[Example], cache: Path, cancel: threading.Event | None = None
) -> Generator[int, None, Conversion | None]:
    """Compare on a float32 copy; None where the disk has no room for even one layer of it.

    Yields as `compared` does. Raises what it and the writing of the copy raise.
    """
    base, adapter = read_header(pair.base), read_header(pair.gguf)
    with work_folder(cache) as work:
        room = min(LIMIT, int(shutil.disk_usage(work).free * 0.8))
        layers = choose_layers(base, touched_layers(adapter.tensors), room)
        if float_size(base, layers) > room:
            return None
        copy = Pair(work / "base.gguf", work, work / GGUF_NAME)
        write_excerpt(base, copy.base, layers, cancel)
        write_adapter_excerpt(adapter, copy.gguf, layers)
        write_folder(work, _excerpt(read_folder(pair.folder), layers))
        found = yield from compared(copy, sequences, cache, cancel)
    of = int(str(base.metadata[f"{base.architecture}.block_count"]))
    return Conversion(len(layers), of, found.base_kl, found.kl, found.effect_cosine, found.effect_kl)


def _excerpt(adapter: Adapter, layers: list[int]) -> Adapter:
    """The part of an adapter that is for these layers, under their new numbers."""
    kept = {}
    for path, matrices in adapter.layers.items():
        if (found := _PATH.match(path)) is None:
            kept[path] = matrices
        elif (layer := int(found.group(1))) in layers:
            kept[_PATH.sub(f"model.layers.{layers.index(layer)}.", path, count=1)] = matrices
    return Adapter(adapter.rank, adapter.alpha, kept, adapter.dropout)
