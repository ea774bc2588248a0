"""Importance matrices, as llama-imatrix writes them: how much each input of a weight matters when it is quantized.

Two forms, both little-endian (common/imatrix-loader.cpp and tools/imatrix/imatrix.cpp in llama.cpp):

    GGUF    tensors `<weight>.in_sum2` (matrices, columns), sums of squared inputs, and `<weight>.counts` (matrices, 1),
            both F32; metadata imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size
    .dat    i32 entries; each i32 length, name, i32 calls, i32 values, f32 values; then perhaps i32 chunks, i32 length
            and the name of the dataset

What counts is the mean: sums / counts, or values / calls. A matrix that no input reached has ones, as in llama.cpp.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localllm.errors import DataError
from localllm.weights.gguf import MAGIC, GGUFFile, StringArray, read_header

_SUMS, _COUNTS = ".in_sum2", ".counts"
_KEYS = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
_HINT = "Make one with llama.cpp's llama-imatrix."
_I32 = struct.Struct("<i")


@dataclass(frozen=True)
class ImportanceMatrix:
    """What an importance matrix says of a model's weights."""

    importance: Mapping[str, NDArray[np.float32]]
    """Name of a weight -> (columns,), or (experts * columns,) for a stack of experts; finite and not negative."""
    dataset: str
    """Name of the text that it was made of; empty if unknown."""
    chunks: int
    """Parts of it that were looked at; 0 if unknown."""

    def of(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """(columns,) or (experts, columns) for a weight of that shape, None where nothing is known of it.

        Raises DataError when it was made for another shape.
        """
        found = self.importance.get(name)
        if found is None:
            return None
        wanted = (*shape[:-2], shape[-1])
        if found.size != int(np.prod(wanted)):
            raise DataError(
                f"The importance matrix has {found.size} values for {name}, which takes {int(np.prod(wanted))}.",
                "It was made for another model.",
            )
        return found.reshape(wanted)


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read either form. Raises DataError, and InvalidModelError for a damaged GGUF."""
    try:
        with path.open("rb") as file:
            is_gguf = file.read(len(MAGIC)) == MAGIC
        matrix = _from_gguf(read_header(path)) if is_gguf else _from_dat(path, path.read_bytes())
    except OSError as error:
        raise DataError(f"The importance matrix cannot be read ({error.strerror}).", _HINT, path=path) from error
    for name, values in matrix.importance.items():
        if not np.all(np.isfinite(values)) or values.min() < 0:
            raise DataError(f"The importance of {name} is not finite, or negative.", _HINT, path=path)
    return matrix


def _from_gguf(file: GGUFFile) -> ImportanceMatrix:
    missing = [key for key in _KEYS if key not in file.metadata]
    if missing:
        raise DataError(f"This GGUF is not an importance matrix: it has no {missing[0]}.", _HINT, path=file.path)
    names = [name.removesuffix(_SUMS) for name in file.tensors if name.endswith(_SUMS)]
    if not names:
        raise DataError("This importance matrix is empty.", _HINT, path=file.path)
    datasets, chunks = file.metadata[_KEYS[0]], file.metadata[_KEYS[1]]
    dataset = datasets[0] if isinstance(datasets, StringArray) and len(datasets) else ""
    return ImportanceMatrix({name: _mean(file, name) for name in names}, dataset, _positive(chunks))


def _mean(file: GGUFFile, name: str) -> NDArray[np.float32]:
    sums, counts = _floats(file, name + _SUMS), _floats(file, name + _COUNTS)
    if sums.size % counts.size:
        raise DataError(f"The sums and counts of {name} do not fit.", _HINT, path=file.path)
    rows = sums.reshape(counts.size, -1)
    whole = np.rint(counts).astype(np.float32).reshape(-1, 1)
    means = np.divide(rows, np.maximum(whole, 1), dtype=np.float32)
    return np.where(whole > 0, means, np.float32(1)).reshape(-1)


def _floats(file: GGUFFile, name: str) -> NDArray[np.float32]:
    info = file.tensors.get(name)
    if info is None or info.type != "F32":
        raise DataError(f"{name} is missing or not F32.", _HINT, path=file.path)
    return np.fromfile(file.path, "<f4", info.nbytes // 4, offset=info.offset)


def _from_dat(path: Path, data: bytes) -> ImportanceMatrix:
    importance: dict[str, NDArray[np.float32]] = {}
    try:
        (entries,), position = _I32.unpack_from(data), 4
        if entries < 1:
            raise ValueError("it has no entries")
        for _ in range(entries):
            raw, position = _counted(data, position)
            calls, count = struct.unpack_from("<ii", data, position)
            if not raw or count < 1:
                raise ValueError("an entry is empty")
            values = np.frombuffer(data, "<f4", count, position + 8)
            position += 8 + 4 * count
            importance[raw.decode("utf-8", "replace")] = np.divide(values, max(calls, 1), dtype=np.float32)
        return ImportanceMatrix(importance, *_trailer(data, position))
    except (struct.error, ValueError) as error:
        message = f"This is not an importance matrix, or it is damaged: {error}."
        raise DataError(message, _HINT, path=path) from error


def _trailer(data: bytes, position: int) -> tuple[str, int]:
    """Dataset and chunks; older files end without them."""
    if len(data) < position + 8:
        return "", 0
    (chunks,) = _I32.unpack_from(data, position)
    name, _ = _counted(data, position + 4)
    return name.decode("utf-8", "replace"), _positive(chunks)


def _counted(data: bytes, position: int) -> tuple[bytes, int]:
    """The bytes behind an i32 length, and the position after them. Raises ValueError where the file ends first."""
    (length,) = _I32.unpack_from(data, position)
    start, end = position + 4, position + 4 + length
    if not start <= end <= len(data):
        raise ValueError(f"a name at byte {position} claims {length} bytes")
    return data[start:end], end


def _positive(number: object) -> int:
    return number if isinstance(number, int) and number > 0 else 0
