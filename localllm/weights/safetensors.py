"""A strict reader of safetensors files.

Layout (the safetensors format's README): header length u64 little-endian, then that many bytes of JSON, name -> dtype,
shape and data_offsets counted from the end of the header; then the data, without gaps. "__metadata__" may be a map of
strings, is left out, or is null: mlx-lm writes that, and the safetensors package refuses it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import AdapterError

Matrix = NDArray[np.float32]
MAX_HEADER = 100_000_000  # the safetensors package's own limit
_SIZES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Entry:
    """A tensor's place in a file; `start` and `end` count bytes from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_tensors(path: Path) -> dict[str, Matrix]:
    """All tensors of a file as float32, by name. F16 and BF16 are widened, which is exact.

    Raises AdapterError, in one sentence, for a file that is missing, truncated, malformed, or holds another dtype.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror or error}.") from error
    entries, start = read_entries(path, content)
    return {entry.name: _values(content, start, entry) for entry in entries}


def read_entries(path: Path, content: bytes | mmap, sizes: Mapping[str, int] = _SIZES) -> tuple[list[Entry], int]:
    """The tensors of a file's content, and where its data begins. `sizes` are bytes of a number, by dtype.

    Raises AdapterError, in one sentence, for what is truncated or malformed, or has a dtype that is not in `sizes`.
    """
    header, start = _header(path, content)
    entries = [_entry(path, name, value, sizes) for name, value in header.items() if name != "__metadata__"]
    _check_places(path, entries, len(content) - start)
    return entries, start


def _damaged(path: Path, problem: str) -> AdapterError:
    return AdapterError(f"{path} is not a sound safetensors file: {problem}.", "Copy or download it again.")


def _header(path: Path, content: bytes | mmap) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(MAX_HEADER, len(content) - 8):
        raise _damaged(path, f"its header claims {length} bytes, the file has {len(content)}")
    try:
        header = json.loads(content[8 : 8 + length], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header, 8 + length


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _entry(path: Path, name: str, value: Any, sizes: Mapping[str, int]) -> Entry:
    try:
        dtype, shape, (start, end) = str(value["dtype"]), tuple(value["shape"]), value["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise _damaged(path, f"{name!r} lacks its dtype, shape or offsets") from error
    if dtype not in sizes:
        raise AdapterError(f"{path}: {name} has the dtype {dtype}.", "Save the adapter as F32, F16 or BF16.")
    if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
        raise _damaged(path, f"the shape or offsets of {name!r} are not whole numbers")
    if math.prod(shape) * sizes[dtype] != end - start:
        raise _damaged(path, f"{name!r} of shape {shape} has {end - start} bytes")
    return Entry(name, dtype, shape, start, end)


def _check_places(path: Path, entries: list[Entry], size: int) -> None:
    """The tensors must cover the data without gap or overlap."""
    expected = 0
    for entry in sorted(entries, key=lambda e: (e.start, e.end)):
        if entry.start != expected:
            raise _damaged(path, f"{entry.name!r} lies at {entry.start} instead of {expected}")
        expected = entry.end
    if expected != size:
        raise _damaged(path, f"its tensors take {expected} bytes, the file has {size}")


def _values(content: bytes, start: int, entry: Entry) -> Matrix:
    def numbers(kind: str) -> NDArray[Any]:
        return np.frombuffer(content, kind, math.prod(entry.shape), start + entry.start).reshape(entry.shape)

    if entry.dtype == "BF16":  # the upper half of a float32
        return (numbers("<u2").astype(np.uint32) << 16).view(np.float32)
    return numbers("<f4" if entry.dtype == "F32" else "<f2").astype(np.float32)
