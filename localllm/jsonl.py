"""JSON Lines: read with line numbers, append so that a crash costs at most the line being written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from localllm.errors import DataError, StorageError


def read(path: Path) -> Iterator[tuple[int, Any]]:
    """(line number from 1, value) for every line that is not blank. Raises DataError naming the line."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield number, _parse(path, number, raw)
    except OSError as e:
        raise DataError(f"cannot be read ({e.strerror}).", "Check the path and its permissions.", path=path) from e


def _parse(path: Path, number: int, raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as e:
        raise DataError(f"byte {e.start} is not UTF-8.", "Save the file as UTF-8.", path=path, line=number) from e
    except json.JSONDecodeError as e:
        message = f"not valid JSON at column {e.colno} ({e.msg})."
        raise DataError(message, "Each line must be one JSON object.", path=path, line=number) from e


class Appender:
    """Appends rows to a JSONL file, each synced to disk; a half-written last line of a crashed run is cut off first."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises StorageError when it cannot be written."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a row that does not fit on the disk must not come back when the file is closed.
            self._file = path.open("ab+", buffering=0)
            self._drop_partial_line()
        except OSError as e:
            raise StorageError(
                f"Cannot write {path} ({e.strerror}).", "Choose another place or free some space."
            ) from e

    def _drop_partial_line(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        end = size
        while end > 0:
            step = min(1 << 16, end)
            self._file.seek(end - step)
            newline = self._file.read(step).rfind(b"\n")
            if newline >= 0:
                end = end - step + newline + 1
                break
            end -= step
        if end < size:
            self._file.truncate(end)

    def append(self, row: Any) -> None:
        """Write one row and wait until it is on disk. Raises StorageError; the rows before it stay."""
        rest = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as e:
            with suppress(OSError):
                self._file.truncate(end)
            raise StorageError(f"Cannot write {self.path} ({e.strerror}).", "Free some space and run it again.") from e

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Appender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
