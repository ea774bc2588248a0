"""A GGUF file as entries and tensors that can be changed and put together again, every offset right.

Layout (llama.cpp, ggml/docs/gguf.md): see localllm/weights/gguf.py. Nothing here checks anything: only valid files are
taken apart.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from localllm.weights.ggml import TYPES

STRING, ARRAY = 8, 9
FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class Entry:
    """A metadata entry: key, type, and the value as it lies in the file."""

    key: bytes
    kind: int
    value: bytes


@dataclass(frozen=True)
class Tensor:
    """A tensor with its bytes; dimensions fastest first."""

    name: bytes
    dims: tuple[int, ...]
    kind: int
    data: bytes


@dataclass(frozen=True)
class Parts:
    """A file taken apart."""

    entries: tuple[Entry, ...]
    tensors: tuple[Tensor, ...]
    alignment: int = 32

    @cached_property
    def marks(self) -> tuple[int, ...]:
        """Where in the assembled file counts, lengths, types and offsets lie."""
        found, position = [4, 8, 16], 24
        for entry in self.entries:
            found += [position, position + 8 + len(entry.key), position + 12 + len(entry.key)]
            found += [position + 16 + len(entry.key)] if entry.kind == ARRAY else []
            position += 12 + len(entry.key) + len(entry.value)
        for tensor in self.tensors:
            shape = position + 8 + len(tensor.name)
            after = shape + 4 + 8 * len(tensor.dims)
            found += [position, shape, *range(shape + 4, after, 8), after, after + 4]
            position = after + 12
        return tuple(found)

    @cached_property
    def assembled(self) -> bytes:
        """The file, each tensor where it has to be."""
        pieces = [b"GGUF", struct.pack("<IQQ", 3, len(self.tensors), len(self.entries))]
        for entry in self.entries:
            pieces += [_U64.pack(len(entry.key)), entry.key, _U32.pack(entry.kind & 0xFFFFFFFF), entry.value]
        offset, data = 0, []
        for tensor in self.tensors:
            shape = struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims)
            place = struct.pack("<IQ", tensor.kind & 0xFFFFFFFF, offset)
            pieces += [_U64.pack(len(tensor.name)), tensor.name, shape, place]
            padding = -len(tensor.data) % self.alignment
            data += [tensor.data, bytes(padding)]
            offset += len(tensor.data) + padding
        head = b"".join(pieces)
        return b"".join([head, bytes(-len(head) % self.alignment), *data])


def take_apart(file: bytes) -> Parts:
    """The parts of a valid little-endian file."""
    _, _, n_tensors, n_entries = struct.unpack_from("<4sIQQ", file)
    position, entries, infos = 24, [], []
    for _ in range(n_entries):
        key, position = _string(file, position)
        kind = _U32.unpack_from(file, position)[0]
        end = position + 4 + _length(file, position + 4, kind)
        entries.append(Entry(key, kind, file[position + 4 : end]))
        position = end
    for _ in range(n_tensors):
        name, position = _string(file, position)
        n_dims = _U32.unpack_from(file, position)[0]
        dims = struct.unpack_from(f"<{n_dims}Q", file, position + 4)
        kind, offset = struct.unpack_from("<IQ", file, position + 4 + 8 * n_dims)
        infos.append((name, dims, kind, offset))
        position += 16 + 8 * n_dims
    start = -(-position // 32) * 32
    tensors = [
        Tensor(name, dims, kind, file[start + offset : start + offset + nbytes(dims, kind)])
        for name, dims, kind, offset in infos
    ]
    return Parts(tuple(entries), tuple(tensors))


def nbytes(dims: Sequence[int], kind: int) -> int:
    """Bytes of a tensor."""
    block, total = TYPES[kind], 1
    for dimension in dims:
        total *= dimension
    return total // block.weights * block.nbytes


def _string(file: bytes, position: int) -> tuple[bytes, int]:
    end = position + 8 + _U64.unpack_from(file, position)[0]
    return file[position + 8 : end], end


def _length(file: bytes, position: int, kind: int) -> int:
    """Bytes of the value that begins at `position`."""
    if kind == STRING:
        return 8 + int(_U64.unpack_from(file, position)[0])
    if kind != ARRAY:
        return struct.calcsize(FORMATS[kind])
    inner, count = struct.unpack_from("<IQ", file, position)
    if inner != STRING:
        return 12 + int(count) * struct.calcsize(FORMATS[inner])
    end = position + 12
    for _ in range(count):
        _, end = _string(file, end)
    return end - position
