"""Files appear under their names only when they are whole."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from localllm.errors import StorageError


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside `path`, sync, and rename over it. Raises StorageError; then nothing has changed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as e:
        with contextlib.suppress(OSError):  # the folder may be a file, or the name too long
            temporary.unlink(missing_ok=True)
        raise StorageError(f"Cannot write {path} ({e.strerror}).", "Check permissions and free space.") from e


def sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a loss of power. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
