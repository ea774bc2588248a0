"""New metadata entries for a GGUF, as the bytes that its header holds.

Layout and type numbers: `enum gguf_type` in ggml/include/gguf.h and the reader in ggml/src/gguf.cpp. An entry is its
key (u64 length, bytes), its type (u32) and its value; an array's value is the type of its elements (u32), their number
(u64) and the elements. Types are spelled out because llama.cpp insists on them: a block count that is i32 is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

_CODES = {
    "u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"),
    "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d"),
}  # fmt: skip
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Typed:
    """A number or text with its GGUF type: "u8" to "i64", "f32", "f64", "bool" or "string". A sequence is an array."""

    type: str
    value: bool | int | float | str | Sequence[bool] | Sequence[int] | Sequence[float] | Sequence[str]


NewValue = Typed | str | bool
"""Text and truth values have only one type; numbers need `Typed`."""


def encode_entry(key: str, value: NewValue) -> bytes:
    """The entry's bytes. Raises ValueError for an unknown type and for a value that does not fit its type."""
    typed = value if isinstance(value, Typed) else Typed("bool" if isinstance(value, bool) else "string", value)
    number = _STRING if typed.type == "string" else _CODES[typed.type][0] if typed.type in _CODES else None
    if number is None:
        raise ValueError(f"{typed.type!r} is not a type of GGUF metadata")
    try:
        if isinstance(typed.value, str) or not isinstance(typed.value, Sequence):
            return _text(key) + struct.pack("<I", number) + _element(typed.type, typed.value)
        head = struct.pack("<IIQ", _ARRAY, number, len(typed.value))
        return _text(key) + head + b"".join(_element(typed.type, item) for item in typed.value)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"{key} cannot hold {typed.value!r} as {typed.type}: {error}") from error


def _element(kind: str, value: bool | int | float | str) -> bytes:
    if kind != "string":
        return struct.pack("<" + _CODES[kind][1], value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return _text(value)


def _text(text: str) -> bytes:
    raw = text.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw
