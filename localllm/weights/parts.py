"""Headers of models in several files, and of files of which only the beginning is here.

llama.cpp's `llama-gguf-split` writes NAME-00001-of-0000N.gguf: the first part has all metadata and perhaps no tensors,
each part its own tensors, and `split.no`, `split.count` say which it is. llama.cpp loads them all when given the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from localllm.errors import InvalidModelError
from localllm.weights.checks import check
from localllm.weights.gguf import GGUFFile, Reader, StringArray, TensorInfo, Value, mapped, read_header

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_SPLIT = ("split.no", "split.count", "split.tensors.count")
Part = tuple[GGUFFile, dict[str, tuple[int, int | None]]]
"""A part's header, and the types of its metadata."""


def part_paths(path: Path) -> list[Path]:
    """All parts of the model whose first part this is; the file alone when its name is not that of a part."""
    name = _NAME.fullmatch(path.name)
    if name is None or int(name["number"]) != 1:
        return [path]
    count = int(name["count"])
    return [path.with_name(f"{name['stem']}-{n:05}-of-{name['count']}.gguf") for n in range(1, count + 1)]


def read_model(path: Path) -> GGUFFile:
    """As `read_header`, also for the first part of several: tensors are then those of all parts, each with its offset
    in the file where it lies, and the size is that of all. For whoever hands the path to llama.cpp.
    """
    paths = part_paths(path)
    return read_header(path) if len(paths) == 1 else joined([_read_part(part) for part in paths])


def joined(parts: Sequence[Part]) -> GGUFFile:
    """One checked header from those of all parts, in their order. Raises InvalidModelError."""
    first, kinds = parts[0]
    tensors: dict[str, TensorInfo] = {}
    for number, (part, _) in enumerate(parts):
        said = tuple(part.metadata.get(key) for key in _SPLIT[:2])
        if said != (number, len(parts)):
            raise InvalidModelError(f"{part.path} is not part {number + 1} of {len(parts)}.", "Download it again.")
        if twice := next((name for name in part.tensors if name in tensors), None):
            raise InvalidModelError(f"{part.path} is damaged: tensor {twice!r} is in another part too.")
        tensors |= part.tensors
    if first.metadata.get(_SPLIT[2], len(tensors)) != len(tensors):
        raise InvalidModelError(f"{first.path} is damaged: its parts do not hold the tensors that it counts.")
    metadata: dict[str, Value] = {key: value for key, value in first.metadata.items() if key not in _SPLIT}
    whole = replace(first, metadata=metadata, tensors=tensors, size=sum(part.size for part, _ in parts))
    check(whole, kinds)
    return whole


def read_beginning(path: Path, beginning: bytes, size: int) -> Part | int:
    """The header of a file of `size` bytes from its beginning, not yet checked for what it says (see `joined` and
    `finished`); or, when the beginning is too short, a number of bytes that would be needed at least.

    `path` is only told in messages. Raises InvalidModelError for what no further byte would mend.
    """
    reader = _Beginning(path, beginning, size)
    try:
        return reader.parse(part=True), reader.kinds
    except _TooShort as short:
        return min(size, short.needed)


def finished(part: Part) -> GGUFFile:
    """A header that stands for a whole model, checked. Raises InvalidModelError."""
    file, kinds = part
    if not file.tensors:
        raise InvalidModelError(f"{file.path} is a GGUF without weights.", "Choose another file.")
    check(file, kinds)
    return file


def _read_part(path: Path) -> Part:
    with mapped(path) as data:
        reader = Reader(path, data, len(data))
        return reader.parse(part=True), reader.kinds


class _TooShort(Exception):  # noqa: N818 - not an error
    def __init__(self, needed: int) -> None:
        self.needed = needed


class _Beginning(Reader):
    """Reads within the bytes that are here and knows how long the file is."""

    def _take(self, nbytes: int, what: str) -> int:
        start = super()._take(nbytes, what)
        if start + nbytes > len(self.data):
            raise _TooShort(start + nbytes)
        return start

    def _string_array(self, count: int, what: str) -> StringArray:
        start = self.position
        whole, self.size = self.size, min(self.size, len(self.data))
        try:
            return super()._string_array(count, what)
        except InvalidModelError:
            if whole <= len(self.data):
                raise
            # Where the array ends is not known before its last string: at least all its lengths are still to come.
            raise _TooShort(max(start + 8 * count, len(self.data) + 1)) from None
        finally:
            self.size = whole
