"""A strict reader of GGUF headers: every count, length, type and offset is checked before native code sees the file.

Layout (ggml/docs/gguf.md, gguf.cpp), little-endian: magic "GGUF", version u32, tensor count u64, metadata count u64;
each metadata entry is key, type u32, value; each tensor entry is name, dimension count u32, dimensions u64 (fastest
first), type u32, offset u64; then padding to `general.alignment`, then the tensors, each padded to it, in their order.
"""

from __future__ import annotations

import mmap
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from localllm.errors import InvalidModelError, ModelNotFoundError
from localllm.weights.checks import check
from localllm.weights.ggml import TYPES
from localllm.weights.strings import StringArray as StringArray  # part of a header, so to be had from here too

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMS = 4  # GGML_MAX_DIMS
MAX_NAME = 63  # GGML_MAX_NAME, less its closing zero byte
MAX_KEY = 65535
MAX_TENSORS, MAX_ENTRIES = 1 << 15, 1 << 14
LONG_TEXT, MAX_TEXT, MAX_STRINGS, MAX_METADATA = 1 << 20, 2 << 20, 1 << 22, 256 << 20
"""Bytes of one text that are kept (a whole tokenizer.json may be among them, and nobody reads it), and bounds of all
that a file may hold: bytes of names and texts, strings in arrays, bytes of an array. Python's objects are larger than
what they stand for in the file."""
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}


Value = int | float | bool | str | StringArray | array  # type: ignore[type-arg]


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies and how it is stored."""

    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as numpy has it: (out, in) for a linear layer."""
    type: str
    """Name of its ggml type, such as "Q4_K"."""
    offset: int
    """Bytes from the start of the file."""
    nbytes: int


@dataclass(frozen=True)
class GGUFFile:
    """A checked header: every tensor lies within the file and none overlaps another."""

    path: Path
    version: int
    metadata: dict[str, Value]
    tensors: dict[str, TensorInfo]
    data_offset: int
    """Bytes from the start of the file to the first tensor."""
    size: int
    """Bytes of the whole file."""
    entries: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where each metadata entry begins and ends in the file, so that a copy can keep it byte for byte."""

    @property
    def kind(self) -> str:
        """What the file holds, "model" or "adapter": `general.type`, which older models leave out."""
        return str(self.metadata.get("general.type", "model"))

    @property
    def architecture(self) -> str:
        """`general.architecture`, or an empty string."""
        return str(self.metadata.get("general.architecture", ""))


def read_header(path: Path) -> GGUFFile:
    """Read and check the header of a GGUF file with weights.

    Raises ModelNotFoundError for a missing file and InvalidModelError, in one sentence, for everything else: a folder,
    no permission, another format, a truncated file, malformed counts, or a vocabulary without weights.
    """
    with mapped(path) as data:
        return Reader(path, data, len(data)).read()


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """A file's bytes. Raises ModelNotFoundError and InvalidModelError."""
    _check_file(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except OSError as error:
        raise InvalidModelError(f"{path} cannot be read: {error.strerror or error}.") from error


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFoundError(f"There is no file {path}.", "Check the path, or see `localllm list`.") from None
    except (OSError, ValueError) as error:
        raise InvalidModelError(f"{path} cannot be read: {error}.") from error
    if path.is_dir():
        if (path / "config.json").is_file():
            raise InvalidModelError(f"{path} is an MLX folder; this needs a GGUF.", "Name the GGUF of the same model.")
        raise InvalidModelError(f"{path} is a folder.", "Give the .gguf file inside it.")
    if not path.is_file():
        raise InvalidModelError(f"{path} is not a regular file.")
    if size == 0:
        raise InvalidModelError(f"{path} is empty.", "Download it again.")


class Reader:
    """A cursor over the mapped file that refuses to go past its end."""

    def __init__(self, path: Path, data: mmap.mmap | bytes, size: int) -> None:
        self.path, self.data, self.size = path, data, size
        self.position = 0
        self.entries: dict[str, tuple[int, int]] = {}
        self.kinds: dict[str, tuple[int, int | None]] = {}
        self.text = self.strings = 0

    def fail(self, problem: str, hint: str = "") -> InvalidModelError:
        return InvalidModelError(f"{self.path} {problem}.", hint)

    def read(self) -> GGUFFile:
        """The header of a whole model."""
        file = self.parse()
        check(file, self.kinds)
        return file

    def parse(self, *, part: bool = False) -> GGUFFile:
        """The header as it stands; what it says is not yet looked at. A part of a model may be without tensors."""
        version = self._preamble()
        n_tensors = self._count("tensors", 8 + 4 + 8 + 4 + 8, MAX_TENSORS)
        n_metadata = self._count("metadata entries", 8 + 4 + 1, MAX_ENTRIES)
        metadata = self._metadata(n_metadata)
        if n_tensors == 0 and not part:
            hint = "It may hold a vocabulary only; download the file with the weights."
            raise self.fail("is a GGUF without weights", hint)
        infos = [self._tensor_info() for _ in range(n_tensors)]
        alignment = self._alignment(metadata)
        start = -(-self.position // alignment) * alignment
        tensors = self._placed(infos, start, alignment)
        return GGUFFile(self.path, version, metadata, tensors, start, self.size, self.entries)

    def _preamble(self) -> int:
        if self.data[:4] != MAGIC:
            raise self.fail("is not a GGUF file", "Models for localllm are single .gguf files.")
        self.position = 4
        version = self._u32("the version")
        if version == 1:
            raise self.fail("has GGUF version 1, which llama.cpp no longer reads", "Download a newer conversion.")
        if version and version & 0xFFFF == 0:
            raise self.fail("is a big-endian GGUF", "Only little-endian files can be used; convert it again.")
        if version not in VERSIONS:
            raise self.fail(f"has GGUF version {version}, and only 2 and 3 are known", "It may be damaged or newer.")
        return version

    def _take(self, nbytes: int, what: str) -> int:
        """Position of the next `nbytes` bytes, which are skipped."""
        start = self.position
        if nbytes > self.size - start:
            missing = nbytes - (self.size - start)
            problem = f"is truncated or damaged: {what} at byte {start} needs {missing} bytes more than the file has"
            raise self.fail(problem, "Download it again.")
        self.position = start + nbytes
        return start

    def _u32(self, what: str) -> int:
        return int(_U32.unpack_from(self.data, self._take(4, what))[0])

    def _u64(self, what: str) -> int:
        return int(_U64.unpack_from(self.data, self._take(8, what))[0])

    def _count(self, what: str, smallest: int, most: int = MAX_METADATA) -> int:
        """A count of entries, each of at least `smallest` bytes, that the rest of the file could hold."""
        count = self._u64(f"the number of {what}")
        if count * smallest > self.size - self.position:
            raise self.fail(f"is truncated or damaged: it claims {count} {what}, more than fit in {self.size} bytes")
        if count > most or count * smallest > MAX_METADATA:
            raise self.fail(f"is damaged: it claims {count} {what}")
        return count

    def _string(self, what: str, longest: int | None = None) -> str:
        length = self._u64(what)
        if longest is not None and length > longest:
            raise self.fail(f"is damaged: {what} claims {length} bytes, more than {longest}")
        start = self._take(length, what)
        kept = min(length, LONG_TEXT)
        self.text += kept
        if self.text > MAX_TEXT:
            raise self.fail(f"is damaged: its names and texts, up to {what}, have more than {MAX_TEXT} bytes")
        return self.data[start : start + kept].decode("utf-8", errors="replace")

    def _metadata(self, count: int) -> dict[str, Value]:
        metadata: dict[str, Value] = {}
        for _ in range(count):
            start = self.position
            key = self._string("a metadata key", MAX_KEY)
            if not key or key in metadata:
                raise self.fail(f"is damaged: the metadata key {key!r:.80} is {'repeated' if key else 'empty'}")
            if "\0" in key:  # llama.cpp would read it up to there
                raise self.fail(f"is damaged: the metadata key {key!r:.80} holds a zero byte")
            metadata[key] = self._value(self._u32(f"the type of {key!r:.80}"), key)
            self.entries[key] = (start, self.position)
        return metadata

    def _value(self, kind: int, key: str) -> Value:
        self.kinds[key] = (kind, None)
        if kind == _STRING:
            return self._string(f"the value of {key!r:.80}")
        if kind == _ARRAY:
            return self._array(key)
        if kind not in _SCALARS:
            raise self.fail(f"is damaged: {key!r:.80} has the unknown value type {kind}")
        code = "<" + _SCALARS[kind]
        start = self._take(struct.calcsize(code), f"the value of {key!r:.80}")
        value: Value = struct.unpack_from(code, self.data, start)[0]
        return value

    def _array(self, key: str) -> Value:
        kind = self._u32(f"the element type of {key!r:.80}")
        self.kinds[key] = (_ARRAY, kind)
        what = f"the array {key!r:.80}"
        if kind == _STRING:
            count = self._count(f"strings in {key!r:.80}", 8, MAX_STRINGS - self.strings)
            self.strings += count
            return self._string_array(count, what)
        if kind not in _SCALARS:
            raise self.fail(f"is damaged: {what} has the element type {kind}")
        items = array("B" if kind == _BOOL else _SCALARS[kind])
        nbytes = self._count(f"elements of {key!r:.80}", items.itemsize) * items.itemsize
        start = self._take(nbytes, what)
        with memoryview(self.data) as view, view[start : start + nbytes] as part:  # no second copy
            items.frombytes(part)
        return items

    def _string_array(self, count: int, what: str) -> StringArray:
        # The hot loop of the whole reader: a vocabulary and its merges are some 300,000 strings.
        data, size, unpack = self.data, self.size, _U64.unpack_from
        first = position = self.position
        try:
            for _ in range(count):
                position += 8 + unpack(data, position)[0]
        except (struct.error, OverflowError):  # a length beyond the file
            position = size + 1
        if position > size:
            raise self.fail(f"is truncated or damaged: {what} runs past the end of the file", "Download it again.")
        self.position = position
        return StringArray(data[first:position], count)

    def _alignment(self, metadata: dict[str, Value]) -> int:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 32 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.fail(f"is damaged: its alignment {alignment!r} is not a power of two from 32 to {1 << 20}")
        return alignment

    def _tensor_info(self) -> TensorInfo:
        """The next entry, with the offset still counted from the first tensor."""
        name = self._string("a tensor name", MAX_NAME)
        if "\0" in name:
            raise self.fail(f"is damaged: the tensor name {name!r} holds a zero byte")
        n_dims = self._u32(f"the shape of {name!r}")
        if not 1 <= n_dims <= MAX_DIMS:
            raise self.fail(f"is damaged: tensor {name!r} has {n_dims} dimensions")
        fastest_first = [self._u64(f"the shape of {name!r}") for _ in range(n_dims)]
        kind = self._u32(f"the type of {name!r}")
        offset = self._u64(f"the offset of {name!r}")
        if kind not in TYPES:
            raise self.fail(f"holds tensor {name!r} of the unknown type {kind}", "It may be damaged, or too new.")
        block = TYPES[kind]
        if 0 in fastest_first or fastest_first[0] % block.weights:
            shape = " x ".join(map(str, fastest_first))
            raise self.fail(f"is damaged: tensor {name!r} of type {block.name} cannot have the shape {shape}")
        weights = 1
        for dimension in fastest_first:  # Python's integers do not wrap
            weights *= dimension
        nbytes = weights // block.weights * block.nbytes
        return TensorInfo(name, tuple(reversed(fastest_first)), block.name, offset, nbytes)

    def _placed(self, infos: list[TensorInfo], start: int, alignment: int) -> dict[str, TensorInfo]:
        """The tensors with offsets from the start of the file; they must follow each other as llama.cpp requires."""
        tensors: dict[str, TensorInfo] = {}
        expected, end = 0, start
        for info in infos:
            if info.name in tensors:
                raise self.fail(f"is damaged: tensor {info.name!r} occurs twice")
            if info.offset != expected:
                raise self.fail(f"is damaged: tensor {info.name!r} lies at {info.offset} instead of {expected}")
            end = start + expected + info.nbytes
            expected += -(-info.nbytes // alignment) * alignment
            tensors[info.name] = TensorInfo(info.name, info.shape, info.type, start + info.offset, info.nbytes)
        if end > self.size:
            raise self.fail(f"is truncated: {end - self.size} of {end} bytes are missing", "Download it again.")
        return tensors
