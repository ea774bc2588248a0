"""Arrays of strings in GGUF metadata, such as vocabularies."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import overload

_U64 = struct.Struct("<Q")


class StringArray(Sequence[str]):
    """Strings of a metadata array, decoded when first looked at: a vocabulary costs nothing until it is used."""

    def __init__(self, raw: bytes, count: int) -> None:
        self._raw, self._count = raw, count
        self._items: list[str] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if self._items is None:
            self._items = [item.decode("utf-8", errors="replace") for item in self.raw()]
        return self._items[index]

    def raw(self) -> list[bytes]:
        """The strings as they are: they need not be UTF-8."""
        raw, unpack = self._raw, _U64.unpack_from
        items, position = [], 0
        for _ in range(self._count):
            start = position + 8
            position = start + unpack(raw, position)[0]
            items.append(raw[start:position])
        return items

    @property
    def nbytes(self) -> int:
        """Bytes of all strings and their lengths."""
        return len(self._raw)
