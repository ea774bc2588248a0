"""Checkpoints: one file each, written beside its place, synced and renamed, with a hash over all that is in it.

    localllm checkpoint <hash>\n        SHA-256 of everything that follows, in hex
    safetensors                         the arrays; its metadata has one entry, "facts", which is JSON

The last two are kept, so that one that was damaged on the disk does not cost the run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.store.files import sync_folder

FORMAT = 1
KEPT = 2
_MAGIC = b"localllm checkpoint "
_HEAD = len(_MAGIC) + 64 + 1
_PART = ".part"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run goes on from."""

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]
    """JSON values; "step" is one of them."""


@dataclass(frozen=True)
class Found:
    """The newest checkpoint that is whole, and the newer ones that are not."""

    checkpoint: Checkpoint | None
    damaged: tuple[Path, ...] = ()


def write(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write one and remove all but the last two. Raises OSError; those that were there are then still there."""
    path = folder / f"step-{checkpoint.facts['step']:09}.checkpoint"
    part = path.with_name(path.name + _PART)
    try:
        with part.open("wb") as file:
            for piece in _pieces(checkpoint):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(folder)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    for old in _files(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> Found:
    """Of a run's folder. What was being written when its process ended is not looked at."""
    damaged: list[Path] = []
    for path in _files(folder):
        if (checkpoint := _read(path)) is not None:
            return Found(checkpoint, tuple(damaged))
        damaged.append(path)
    return Found(None, tuple(damaged))


def pack(checkpoint: Checkpoint) -> bytes:
    """What is in the file of one."""
    return b"".join(_pieces(checkpoint))


def unpack(content: bytes) -> Checkpoint | None:
    """What `pack` was given; None where the hash does not fit."""
    from safetensors.numpy import load

    head, body = content[:_HEAD], content[_HEAD:]
    if head != _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n":
        return None
    size = int.from_bytes(body[:8], "little")
    facts = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["facts"])
    return Checkpoint(load(body), facts)


def exists(folder: Path) -> bool:
    """Whether there is any, whole or not."""
    return bool(_files(folder))


def last_step(folder: Path) -> int:
    """Of the newest one by its name, without reading it; 0 where there is none."""
    names = [path.stem.removeprefix("step-") for path in _files(folder)]
    return next((int(name) for name in names if name.isdecimal()), 0)


def remove_all(folder: Path) -> None:
    """Also what is left of one that was being written."""
    for path in (*_files(folder), *folder.glob(f"step-*{_PART}")):
        path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    """From the newest to the oldest."""
    return sorted(folder.glob("step-*.checkpoint"), reverse=True)


def _pieces(checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(value) for name, value in checkpoint.arrays.items()}
    # ascontiguousarray makes a vector of a number
    arrays = {name: value.reshape(checkpoint.arrays[name].shape) for name, value in arrays.items()}
    body = save(arrays, {"facts": json.dumps({"format": FORMAT, **checkpoint.facts})})
    return _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n", body


def _read(path: Path) -> Checkpoint | None:
    """None for a file that cannot be read or whose hash does not fit."""
    try:
        return unpack(path.read_bytes())
    except OSError:
        return None
