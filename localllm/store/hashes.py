"""What is known of large files, remembered by path, size and modification time so that each is read once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from localllm.errors import StorageError
from localllm.store.files import write_atomically


class FileCache:
    """Facts about files in one small JSON file; a cache that cannot be read or written only costs time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def values(self, paths: Iterable[Path], compute: Callable[[Path], Any]) -> list[Any]:
        """A JSON value for each file: the one that is known, or a new one. Raises OSError and what `compute` raises."""
        known, changed, values = self._load(), False, []
        for path in paths:
            resolved = path.resolve()
            key, stamp = str(resolved), _stamp(resolved)
            entry = known.get(key)
            if not entry or entry[:2] != stamp:
                entry = known[key] = [*stamp, compute(resolved)]
                changed = True
            values.append(entry[2])
        if changed:
            self._save(known)
        return values

    def remember(self, path: Path, value: Any) -> None:
        """What has been found out elsewhere. Raises OSError when there is no such file."""
        resolved = path.resolve()
        self._save(self._load() | {str(resolved): [*_stamp(resolved), value]})

    def known(self, path: Path) -> Any:
        """The value that is remembered for the file as it is now, or None."""
        try:
            resolved = path.resolve()
            entry = self._load().get(str(resolved))
            return entry[2] if entry and entry[:2] == _stamp(resolved) else None
        except (OSError, LookupError):
            return None

    def _load(self) -> dict[str, list[Any]]:
        try:
            table = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return table if isinstance(table, dict) else {}

    def _save(self, table: dict[str, list[Any]]) -> None:
        alive = {key: value for key, value in table.items() if os.path.exists(key)}
        try:
            write_atomically(self._path, json.dumps(alive).encode())
        except StorageError:
            return


class HashCache(FileCache):
    """SHA-256 of files."""

    def sha256(self, path: Path) -> str:
        """Hex digest of the file's bytes. Raises StorageError when it cannot be read."""
        try:
            return str(self.values([path], _sha256)[0])
        except OSError as e:
            raise StorageError(f"Cannot read {path} ({e.strerror}).", "Check its permissions.") from e


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
