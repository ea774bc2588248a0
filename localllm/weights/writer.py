"""A GGUF written as a changed copy of another: what is not changed keeps its very bytes.

Metadata entries are copied as byte ranges, tensors in chunks, so a copy without changes is the same file. Layout as in
gguf.py; like ggml's own writer (gguf_write_to_buf in ggml/src/gguf.cpp) every tensor, the last one too, is padded with
zeros to the file's alignment. Memory: one chunk, besides what a replacement holds while it makes its bytes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from localllm.errors import CancelledError, InvalidModelError
from localllm.weights.beside import beside, check_room, storage_error
from localllm.weights.entries import NewValue, encode_entry
from localllm.weights.ggml import BY_NAME, TYPES
from localllm.weights.gguf import MAX_NAME, GGUFFile, TensorInfo

CHUNK = 4 << 20
_NUMBER = {block.name: number for number, block in TYPES.items()}
Keep = Callable[[TensorInfo], bool]
Rename = Callable[[str], str]


@dataclass(frozen=True)
class Replacement:
    """A tensor's new contents."""

    type: str
    """Name of its ggml type, such as "F32"."""
    shape: tuple[int, ...]
    """Slowest dimension first, as TensorInfo has it."""
    chunks: Callable[[], Iterable[bytes | memoryview]]
    """Called when the tensor's turn comes; together the chunks are its bytes."""


@dataclass(frozen=True)
class Copied:
    """One more tensor is written."""

    done: int
    total: int
    """Tensors of the new file."""
    tensor: str
    """Its new name."""


@dataclass(frozen=True)
class _Slot:
    """A tensor of the new file: from the source or replaced."""

    name: str
    source: TensorInfo
    new: Replacement | None

    @property
    def type(self) -> str:
        return self.new.type if self.new else self.source.type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.new.shape if self.new else self.source.shape

    @property
    def nbytes(self) -> int:
        block = BY_NAME[self.type]
        return prod(self.shape) // block.weights * block.nbytes


def copy_gguf(
    source: GGUFFile,
    target: Path,
    *,
    changed: Mapping[str, Replacement] | None = None,
    metadata: Mapping[str, NewValue | None] | None = None,
    keep: Keep | None = None,
    rename: Rename | None = None,
    cancel: threading.Event | None = None,
) -> None:
    """Run `copying` to its end."""
    deque(
        copying(source, target, changed=changed, metadata=metadata, keep=keep, rename=rename, cancel=cancel), maxlen=0
    )


def copying(
    source: GGUFFile,
    target: Path,
    *,
    changed: Mapping[str, Replacement] | None = None,
    metadata: Mapping[str, NewValue | None] | None = None,
    keep: Keep | None = None,
    rename: Rename | None = None,
    cancel: threading.Event | None = None,
) -> Iterator[Copied]:
    """Write `target`, yielding after each tensor; the file appears, whole, after the last one.

    `changed` is by the source's names. `metadata` replaces entries where they stand, adds those that are new at the
    end, and drops those that are None. `keep` says which tensors stay, and `rename` what they are called.

    Raises StorageError when the disk is too small or cannot be written, InvalidModelError when the source changed under
    way, CancelledError, and ValueError for changes that make no GGUF; nothing is then left of the new file.
    """
    slots = _slots(source, changed or {}, keep, rename)
    alignment = _alignment(source, metadata or {})
    header = _header(source, slots, metadata or {}, alignment)
    temporary = beside(target)
    check_room(target, len(header) + sum(_padded(slot.nbytes, alignment) for slot in slots))
    try:
        with temporary.open("wb") as out, _opened(source) as file:
            out.write(header)
            for done, slot in enumerate(slots, 1):
                _write_tensor(out, file, slot, source, cancel)
                out.write(bytes(_padded(slot.nbytes, alignment) - slot.nbytes))
                yield Copied(done, len(slots), slot.name)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _slots(
    source: GGUFFile, changed: Mapping[str, Replacement], keep: Keep | None, rename: Rename | None
) -> list[_Slot]:
    """The new file's tensors in the source's order. Raises ValueError for a change that has no place."""
    slots = [
        _Slot(rename(info.name) if rename else info.name, info, changed.get(info.name))
        for info in source.tensors.values()
        if keep is None or keep(info)
    ]
    if missing := set(changed) - {slot.source.name for slot in slots}:
        raise ValueError(f"no tensor of {source.path} that is kept is called {sorted(missing)[0]}")
    if len({slot.name for slot in slots}) < len(slots):
        raise ValueError("two tensors would have the same name")
    for slot in slots:
        if not 0 < len(slot.name.encode()) <= MAX_NAME:
            raise ValueError(f"{slot.name!r} is no name for a tensor: 1 to {MAX_NAME} bytes")
        if not slot.shape or 0 in slot.shape or slot.shape[-1] % BY_NAME[slot.type].weights:
            raise ValueError(f"{slot.name} of type {slot.type} cannot have the shape {slot.shape}")
    return slots


def _alignment(source: GGUFFile, metadata: Mapping[str, NewValue | None]) -> int:
    if "general.alignment" in metadata:
        raise ValueError("a copy keeps the alignment of its source")
    alignment = source.metadata.get("general.alignment", 32)
    assert isinstance(alignment, int)  # the reader saw to it
    return alignment


def _header(source: GGUFFile, slots: list[_Slot], metadata: Mapping[str, NewValue | None], alignment: int) -> bytes:
    """Everything before the first tensor, padded."""
    entries = _entries(source, metadata)
    parts = [b"GGUF", struct.pack("<IQQ", source.version, len(slots), len(entries)), *entries]
    offset = 0
    for slot in slots:
        name, shape = slot.name.encode(), slot.shape
        dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        parts += [struct.pack("<Q", len(name)), name, dimensions, struct.pack("<IQ", _NUMBER[slot.type], offset)]
        offset += _padded(slot.nbytes, alignment)
    header = b"".join(parts)
    return header + bytes(_padded(len(header), alignment) - len(header))


def _entries(source: GGUFFile, metadata: Mapping[str, NewValue | None]) -> list[bytes]:
    entries: list[bytes] = []
    with _opened(source) as file:
        for key, (start, end) in source.entries.items():
            if key not in metadata:
                entries.append(b"".join(_read(file, source, start, end - start)))
            elif (value := metadata[key]) is not None:
                entries.append(encode_entry(key, value))
    new = {key: value for key, value in metadata.items() if key not in source.entries and value is not None}
    return entries + [encode_entry(key, value) for key, value in new.items()]


def _write_tensor(out: BinaryIO, file: BinaryIO, slot: _Slot, source: GGUFFile, cancel: threading.Event | None) -> None:
    start = out.tell()
    chunks = slot.new.chunks() if slot.new else _read(file, source, slot.source.offset, slot.nbytes)
    for chunk in chunks:
        if cancel is not None and cancel.is_set():
            raise CancelledError("Stopped; nothing was written.")
        out.write(chunk)
    if out.tell() - start != slot.nbytes:
        raise ValueError(f"{slot.name} takes {slot.nbytes} bytes and was given {out.tell() - start}")


@contextlib.contextmanager
def _opened(source: GGUFFile) -> Iterator[BinaryIO]:
    try:
        file = source.path.open("rb")
    except OSError as error:
        raise InvalidModelError(f"{source.path} cannot be read: {error.strerror or error}.") from error
    with file:
        if os.fstat(file.fileno()).st_size != source.size:
            raise InvalidModelError(f"{source.path} has changed since it was looked at.", "Start again.")
        yield file


def _read(file: BinaryIO, source: GGUFFile, start: int, nbytes: int) -> Iterator[bytes]:
    """That range of the source in chunks. Raises InvalidModelError where it ends too early."""
    position, end = start, start + nbytes
    while position < end:
        try:
            file.seek(position)
            chunk = file.read(min(CHUNK, end - position))
        except OSError as error:
            raise InvalidModelError(f"{source.path} cannot be read: {error.strerror or error}.") from error
        if not chunk:
            raise InvalidModelError(f"{source.path} became shorter while it was copied.", "Download it again.")
        position += len(chunk)
        yield chunk


def _padded(nbytes: int, alignment: int) -> int:
    return -(-nbytes // alignment) * alignment
