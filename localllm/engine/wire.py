"""Frozen dataclasses as lines of JSON, and back: what passes between an engine's child process and its parent.

Not pickle: what a process says whose memory may be damaged is not to be trusted. A line is read as one of the types
that are expected there, and every field is held against its annotation. Types are found by their annotations alone, so
a new field or event needs no change here.

A dataclass is an object with its name under "class", which no field can be called. Only ASCII is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from operator import index
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from localllm.errors import UsageError

MAX_BYTES = 64 << 20
"""Of one line. A prompt of a million tokens takes 7 MB, the longest text that a chat template may write 16 to 96 MB."""
_TAG = "class"
_PLAIN: dict[Any, tuple[type, ...]] = {
    bool: (bool,), int: (int,), float: (float, int), str: (str,), NoneType: (NoneType,)
}  # fmt: skip

Read = Callable[[Any], Any]


def encode(message: Any) -> bytes:
    """The line, with its end. Raises UsageError for one longer than MAX_BYTES."""
    line = json.dumps(message, default=_plain, separators=(",", ":")).encode("ascii") + b"\n"
    if len(line) > MAX_BYTES:
        raise UsageError(
            f"The text is too long: {len(line)} bytes, and the engine takes {MAX_BYTES} at a time.", "Shorten it."
        )
    return line


def decode(line: bytes, kind: Hashable) -> Any:
    """The message of a line that is to be a `kind`. Raises ValueError for anything else."""
    if len(line) > MAX_BYTES:
        raise ValueError(f"a line of {len(line)} bytes")
    try:
        return _reader(kind)(json.loads(line))
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {_TAG: type(value).__name__, **{f.name: getattr(value, f.name) for f in fields(value)}}
    if isinstance(value, Path):
        return str(value)
    return index(value)  # the integers of other libraries


@cache
def _reader(kind: Any) -> Read:
    """What makes a value of an annotated type out of JSON's, or raises ValueError or TypeError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(arguments)
    if origin is Literal:
        return _checked(lambda value: value in arguments, kind)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _row([_reader(argument) for argument in arguments])
    if origin in (tuple, list, Sequence):
        return _series(arguments[0], list if origin is list else tuple)
    if origin is dict:
        return _mapping(*map(_reader, arguments))
    if is_dataclass(kind):
        return _record(kind)
    if kind is Path:
        return lambda value: Path(_reader(str)(value))
    if kind is Any:
        return lambda value: value
    accepted = _PLAIN[kind]
    return _checked(lambda value: type(value) in accepted, kind)


def _checked(right: Callable[[Any], bool], kind: Any) -> Read:
    def read(value: Any) -> Any:
        if not right(value):
            raise _wrong(value, kind)
        return value

    return read


def _one_of(kinds: Sequence[Any]) -> Read:
    classes: list[Any] = [kind for kind in kinds if is_dataclass(kind)]
    records = {kind.__name__: _reader(kind) for kind in classes}
    others = [_reader(kind) for kind in kinds if not is_dataclass(kind)]

    def read(value: Any) -> Any:
        if isinstance(value, dict) and value.get(_TAG) in records:
            return records[value[_TAG]](value)
        for reader in others:
            with suppress(ValueError, TypeError):
                return reader(value)
        raise _wrong(value, "of the types that can stand here")

    return read


def _row(readers: list[Read]) -> Read:
    def read(value: Any) -> Any:
        items = _items(value)
        return tuple(reader(item) for reader, item in zip(readers, items, strict=True))

    return read


def _series(kind: Any, make: type) -> Read:
    accepted, reader = _PLAIN.get(kind), _reader(kind)

    def read(value: Any) -> Any:
        items = _items(value)
        if accepted and all(type(item) in accepted for item in items):  # prompts have thousands
            return make(items)
        return make(reader(item) for item in items)

    return read


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(value, "list")
    return value


def _mapping(key: Read, item: Read) -> Read:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _wrong(value, "object")
        return {key(k): item(v) for k, v in value.items()}

    return read


def _record(kind: Any) -> Read:
    hints = get_type_hints(kind)
    readers = {f.name: _reader(hints[f.name]) for f in fields(kind)}

    def read(value: Any) -> Any:
        if not isinstance(value, dict) or value.get(_TAG) != kind.__name__:
            raise _wrong(value, kind.__name__)
        if strange := value.keys() - readers.keys() - {_TAG}:
            raise ValueError(f"{kind.__name__} has no field {min(strange)[:40]!r}")
        return kind(**{name: readers[name](item) for name, item in value.items() if name != _TAG})

    return read


def _wrong(value: Any, wanted: Any) -> ValueError:
    return ValueError(f"a {type(value).__name__} that is none {wanted}")
