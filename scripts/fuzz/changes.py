"""What can be changed in a GGUF file that was taken apart, so that it says something else and is still in order."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import replace

import gguf

from localllm.weights.ggml import TYPES

from .parts import ARRAY, FORMATS, STRING, Entry, Parts, Tensor, nbytes

_U64 = struct.Struct("<Q")
HUGE = (0, 1, 2, 31, 255, 511, 513, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 63, (1 << 64) - 1)
_LARGEST = 1 << 18
"""Bytes of a tensor that is made to fit its new shape; others keep the bytes they have."""
_FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"))
# fmt: off
_TEXTS = (
    b"", b"\0", b"a\0b", b"<0x-1>", b"<0x", b"<0xZZ>", b"<0x41>", b"\xff\xfe", b"[EMPTY_1]", b"x" * 70, b"adapter",
)
_MODELS = (
    b"gpt2", b"llama", b"bert", b"t5", b"rwkv", b"plamo2", b"gemma4", b"test", b"none", b"whitespace", b"hybriddna",
)
# fmt: on
_ARCHITECTURES = [name.encode() for name in gguf.MODEL_ARCH_NAMES.values()]


def _known_keys() -> list[str]:
    """Every key that the gguf package knows."""
    groups = [vars(group) for name, group in vars(gguf.Keys).items() if not name.startswith("_")]
    return sorted({v for group in groups for k, v in group.items() if isinstance(v, str) and not k.startswith("_")})


_KEYS = _known_keys()


# What can be done to metadata


def _scalar(rng: random.Random, kind: int, old: bytes = b"") -> bytes:
    """A value of a type, near `old` or extreme."""
    if kind == STRING:
        text = rng.choice(_TEXTS)
        return _U64.pack(len(text)) + text
    code = "<" + FORMATS[kind]
    if FORMATS[kind] in "fd":
        return struct.pack(code, rng.choice(_FLOATS))
    bits = 8 * struct.calcsize(code)
    if len(old) * 8 == bits and rng.random() < 0.6:
        value = int.from_bytes(old, "little")
        value = rng.choice((value * 2, value // 2, value + 1, value - 1, value * 3))
        return (value % (1 << bits)).to_bytes(bits // 8, "little")
    return (rng.choice(HUGE) % (1 << bits)).to_bytes(bits // 8, "little")


def _with(parts: Parts, index: int, entry: Entry) -> Parts:
    return replace(parts, entries=(*parts.entries[:index], entry, *parts.entries[index + 1 :]))


def _change_value(rng: random.Random, parts: Parts) -> Parts:
    at = rng.randrange(len(parts.entries))
    entry = parts.entries[at]
    if entry.kind == ARRAY:
        return _with(parts, at, replace(entry, value=_changed_array(rng, entry.value)))
    if entry.key == b"tokenizer.ggml.model":
        model = rng.choice(_MODELS)
        return _with(parts, at, replace(entry, value=_U64.pack(len(model)) + model))
    if entry.key == b"general.architecture":
        return _change_architecture(rng, parts)
    return _with(parts, at, replace(entry, value=_scalar(rng, entry.kind, entry.value)))


def _changed_array(rng: random.Random, value: bytes) -> bytes:
    inner, count = struct.unpack_from("<IQ", value)
    items = _items(value, inner, count)
    kind = rng.randrange(6)
    if kind == 0:
        items = items[: rng.choice((0, 1, len(items) // 2, max(0, len(items) - 1)))]
    elif kind == 1:
        items = items + items[-rng.choice((1, 2, 40)) :]
    elif kind == 2 and items:
        items[rng.randrange(len(items))] = items[rng.randrange(len(items))]
    elif kind == 3:
        inner = rng.choice((*FORMATS, STRING))
        items = [_scalar(rng, inner) for _ in items] if rng.random() < 0.3 else [_padded(i, inner) for i in items]
    elif items:
        for _ in range(rng.choice((1, 1, 5))):
            items[rng.randrange(len(items))] = _scalar(rng, inner)
    return struct.pack("<IQ", inner, len(items)) + b"".join(items)


def _padded(item: bytes, kind: int) -> bytes:
    """The bytes of an element read as another type."""
    if kind == STRING:
        return _U64.pack(len(item)) + item
    size = struct.calcsize(FORMATS[kind])
    return item[:size].ljust(size, b"\0")


def _items(value: bytes, inner: int, count: int) -> list[bytes]:
    if inner != STRING:
        size = struct.calcsize(FORMATS[inner])
        return [value[12 + i * size : 12 + (i + 1) * size] for i in range(count)]
    items, position = [], 12
    for _ in range(count):
        end = position + 8 + _U64.unpack_from(value, position)[0]
        items.append(value[position:end])
        position = end
    return items


def _change_type(rng: random.Random, parts: Parts) -> Parts:
    at = rng.randrange(len(parts.entries))
    entry = parts.entries[at]
    kind = rng.choice((*FORMATS, STRING, ARRAY))
    if kind == ARRAY:
        inner = entry.kind if entry.kind != ARRAY else rng.choice(tuple(FORMATS))
        item = entry.value if entry.kind != ARRAY else _scalar(rng, inner)
        n = rng.choice((0, 1, 1, 2))
        return _with(parts, at, Entry(entry.key, ARRAY, struct.pack("<IQ", inner, n) + item * n))
    value = _padded(entry.value, kind) if entry.kind not in (STRING, ARRAY) else _scalar(rng, kind)
    return _with(parts, at, Entry(entry.key, kind, value))


def _drop_entry(rng: random.Random, parts: Parts) -> Parts:
    at = rng.randrange(len(parts.entries))
    return replace(parts, entries=parts.entries[:at] + parts.entries[at + 1 :]) if len(parts.entries) > 1 else parts


def _swap_values(rng: random.Random, parts: Parts) -> Parts:
    a, b = rng.randrange(len(parts.entries)), rng.randrange(len(parts.entries))
    first, second = parts.entries[a], parts.entries[b]
    return _with(
        _with(parts, a, Entry(first.key, second.kind, second.value)), b, Entry(second.key, first.kind, first.value)
    )


def _add_entry(rng: random.Random, parts: Parts) -> Parts:
    key = rng.choice(_KEYS).replace("{arch}", _architecture(parts).decode("utf-8", "replace")).encode()
    kind = rng.choice((4, 4, 4, 6, 7, STRING, 5, ARRAY))
    value = _scalar(rng, kind) if kind != ARRAY else b""
    if kind == ARRAY:
        inner, n = rng.choice((4, 5, 6, 7, STRING)), rng.choice((0, 1, 4, 300))
        value = struct.pack("<IQ", inner, n) + b"".join(_scalar(rng, inner) for _ in range(n))
    kept = tuple(entry for entry in parts.entries if entry.key != key)
    return replace(parts, entries=(*kept, Entry(key, kind, value)))


def _change_key(rng: random.Random, parts: Parts) -> Parts:
    at = rng.randrange(len(parts.entries))
    entry = parts.entries[at]
    key = rng.choice((entry.key + b"\0", entry.key + b"x", b"", rng.choice(parts.entries).key))
    return _with(parts, at, replace(entry, key=key))


def _architecture(parts: Parts) -> bytes:
    return next((e.value[8:] for e in parts.entries if e.key == b"general.architecture"), b"llama")[:20]


def _change_architecture(rng: random.Random, parts: Parts) -> Parts:
    """Another architecture, in its name and in front of every key."""
    old, new = _architecture(parts), rng.choice(_ARCHITECTURES)
    entries = [
        Entry(e.key, STRING, _U64.pack(len(new)) + new)
        if e.key == b"general.architecture"
        else replace(e, key=new + e.key[len(old) :] if e.key.startswith(old + b".") else e.key)
        for e in parts.entries
    ]
    return replace(parts, entries=tuple(entries))


# What can be done to tensors


def _other_tensor(parts: Parts, at: int, tensor: Tensor) -> Parts:
    return replace(parts, tensors=(*parts.tensors[:at], tensor, *parts.tensors[at + 1 :]))


def _change_tensor_type(rng: random.Random, parts: Parts) -> Parts:
    at = rng.randrange(len(parts.tensors))
    tensor = parts.tensors[at]
    kind = rng.choice(tuple(TYPES))
    if not tensor.data or not tensor.dims or tensor.dims[0] % TYPES[kind].weights:
        return parts
    size = nbytes(tensor.dims, kind)
    if size > _LARGEST:
        return parts
    return _other_tensor(
        parts, at, replace(tensor, kind=kind, data=(tensor.data * (size // len(tensor.data) + 1))[:size])
    )


def _change_shape(rng: random.Random, parts: Parts) -> Parts:
    at = rng.randrange(len(parts.tensors))
    tensor = parts.tensors[at]
    dims = list(tensor.dims) or [1]
    place = rng.randrange(len(dims))
    old = dims[place]
    dims[place] = rng.choice((old * 2, old + 1, max(1, old // 2), rng.choice(HUGE))) % (1 << 64)
    dims = rng.choice((dims, [*tensor.dims[::-1]], [*tensor.dims, 1], [*tensor.dims, 2], [*tensor.dims[:-1]]))[:5]
    if (
        not dims
        or dims[0] % TYPES[tensor.kind].weights
        or 0 in dims
        or not tensor.data
        or nbytes(dims, tensor.kind) > _LARGEST
    ):
        return _other_tensor(parts, at, replace(tensor, dims=tuple(dims)))
    size = nbytes(dims, tensor.kind)
    data = (tensor.data * (size // len(tensor.data) + 1))[:size]
    return _other_tensor(parts, at, replace(tensor, dims=tuple(dims), data=data))


def _change_data(rng: random.Random, parts: Parts) -> Parts:
    at = rng.randrange(len(parts.tensors))
    tensor = parts.tensors[at]
    if rng.random() < 0.5:
        return _other_tensor(parts, at, replace(tensor, data=rng.choice((b"\xff", b"\0", b"\x7f")) * len(tensor.data)))
    return _other_tensor(parts, at, replace(tensor, data=rng.randbytes(len(tensor.data))))


def _drop_tensor(rng: random.Random, parts: Parts) -> Parts:
    at = rng.randrange(len(parts.tensors))
    return replace(parts, tensors=parts.tensors[:at] + parts.tensors[at + 1 :]) if len(parts.tensors) > 1 else parts


def _rename_tensor(rng: random.Random, parts: Parts) -> Parts:
    at = rng.randrange(len(parts.tensors))
    tensor, other = parts.tensors[at], rng.choice(parts.tensors)
    name = rng.choice((other.name, tensor.name + b"x", tensor.name.replace(b"0", b"1"), tensor.name + b"\0", b"y" * 64))
    if rng.random() < 0.4:
        name = tensor.name.replace(b".weight", rng.choice((b".bias", b".scale", b".lora_a", b".input_scale")))
    if rng.random() < 0.5:  # a copy beside it
        return replace(parts, tensors=(*parts.tensors, replace(tensor, name=name)))
    return _other_tensor(parts, at, replace(tensor, name=name))


def _change_alignment(rng: random.Random, parts: Parts) -> Parts:
    alignment = rng.choice((1, 2, 8, 16, 64, 4096))
    kept = tuple(entry for entry in parts.entries if entry.key != b"general.alignment")
    entry = Entry(b"general.alignment", 4, struct.pack("<I", alignment))
    return replace(parts, entries=(*kept, entry), alignment=alignment)


_Change = Callable[[random.Random, Parts], Parts]
OF_ENTRIES: tuple[_Change, ...] = (
    *[_change_value] * 6,
    *[_add_entry] * 4,
    _change_type,
    _drop_entry,
    _swap_values,
    _change_key,
    _change_architecture,
)
OF_TENSORS: tuple[_Change, ...] = (
    _change_tensor_type,
    _change_shape,
    _change_data,
    _drop_tensor,
    _rename_tensor,
    _change_alignment,
)
