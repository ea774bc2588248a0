"""SHA-256 of large files, remembered by path, size and modification time so that each is read once."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from localllm.errors import StorageError
from localllm.store.files import write_atomically


class HashCache:
    """Content hashes kept in one small JSON file; a cache that cannot be read or written only costs time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sha256(self, path: Path) -> str:
        """Hex digest of the file's bytes. Raises StorageError when it cannot be read."""
        resolved = path.resolve()
        try:
            status = resolved.stat()
            key, stamp = str(resolved), [status.st_size, status.st_mtime_ns]
            known = self._load()
            if (entry := known.get(key)) and entry[:2] == stamp:
                return str(entry[2])
            with resolved.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as e:
            raise StorageError(f"Cannot read {path} ({e.strerror}).", "Check its permissions.") from e
        known[key] = [*stamp, digest]
        self._save(known)
        return digest

    def _load(self) -> dict[str, list[object]]:
        try:
            table = json.loads(self._path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return table if isinstance(table, dict) else {}

    def _save(self, table: dict[str, list[object]]) -> None:
        alive = {key: value for key, value in table.items() if os.path.exists(key)}
        try:
            write_atomically(self._path, json.dumps(alive).encode())
        except StorageError:
            return
