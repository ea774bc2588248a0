"""Tiny valid GGUF files and single changes to them, for tests that want one thing wrong."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from scripts.fuzz.parts import ARRAY, FORMATS, STRING, Entry, Parts, Tensor, nbytes, take_apart
from scripts.fuzz.seeds import write_seeds

Value = tuple[int, bytes]
"""Type of a metadata value (enum gguf_type) and its bytes."""


def seeds(folder: Path) -> dict[str, Parts]:
    """The valid files by name, taken apart."""
    return {name: take_apart(path.read_bytes()) for name, path in write_seeds(folder).items()}


def u32(value: int) -> Value:
    return 4, struct.pack("<I", value)


def f32(value: float) -> Value:
    return 6, struct.pack("<f", value)


def text(value: str | bytes) -> Value:
    data = value.encode() if isinstance(value, str) else value
    return STRING, struct.pack("<Q", len(data)) + data


def texts(values: Iterable[str | bytes]) -> Value:
    items = [text(value)[1] for value in values]
    return ARRAY, struct.pack("<IQ", STRING, len(items)) + b"".join(items)


def numbers(kind: int, values: Iterable[float]) -> Value:
    items = list(values)
    return ARRAY, struct.pack(f"<IQ{len(items)}{FORMATS[kind]}", kind, len(items), *items)


def tokens(parts: Parts) -> list[bytes]:
    """The vocabulary of a seed."""
    value = next(entry.value for entry in parts.entries if entry.key == b"tokenizer.ggml.tokens")
    found, position = [], 12
    while position < len(value):
        end = position + 8 + struct.unpack_from("<Q", value, position)[0]
        found.append(value[position + 8 : end])
        position = end
    return found


def set_key(parts: Parts, key: str, value: Value | None) -> Parts:
    """With another value for a key, which is added where it is not there, or without it."""
    entry = [Entry(key.encode(), *value)] if value else []
    entries = [e for e in parts.entries if e.key != key.encode()]
    return replace(parts, entries=(*entries, *entry))


def rename(parts: Parts, architecture: str) -> Parts:
    """The same hyperparameters for another architecture."""
    old = next(e.value[8:] for e in parts.entries if e.key == b"general.architecture") + b"."
    keys = [
        e.key.replace(old, architecture.encode() + b".", 1) if e.key.startswith(old) else e.key for e in parts.entries
    ]
    entries = tuple(replace(e, key=key) for e, key in zip(parts.entries, keys, strict=True))
    return set_key(replace(parts, entries=entries), "general.architecture", text(architecture))


def set_tensor(parts: Parts, name: str, dims: tuple[int, ...] | None = None, kind: int | None = None) -> Parts:
    """With a tensor of other dimensions (fastest first) or type, its bytes to match; dimensions () remove it."""
    changed = []
    for tensor in parts.tensors:
        if tensor.name != name.encode():
            changed.append(tensor)
        elif dims != ():
            shape, type_ = dims or tensor.dims, tensor.kind if kind is None else kind
            changed.append(Tensor(tensor.name, shape, type_, bytes(nbytes(shape, type_))))
    return replace(parts, tensors=tuple(changed))
