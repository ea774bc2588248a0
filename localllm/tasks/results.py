"""A file of results, one JSON row for each piece of work: held by one process, written row by row, gone on with later.

A row is on disk before the next one is begun, so that a process that is killed costs what it was at and nothing else.
Rows are taken out by a new file that is renamed over the old one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from localllm import jsonl
from localllm.errors import StorageError, UsageError
from localllm.store.files import sync_folder
from localllm.weights.beside import beside, storage_error


@dataclass(frozen=True)
class Entry:
    """What a row is the result of."""

    item: str
    """The name of what was worked on; it has one row."""
    key: str
    """Names everything that the result depends on, such as a digest of the request and the settings."""
    failed: bool


class Results:
    """The rows of `path` while the `with` block lasts; `found` holds what earlier runs left, by item.

    `entry_of` reads a row, or returns None for one that is of another kind: such a file is not touched. Raises
    UsageError for a folder or a file of something else, StorageError where it cannot be written or another process
    holds it.
    """

    def __init__(self, path: Path, entry_of: Callable[[dict[str, Any]], Entry | None]) -> None:
        self.path = path.resolve()  # a link stays one when the file behind it is replaced
        self.found: dict[str, Entry] = {}
        self._entry_of = entry_of
        self._lock: _Lock | None = None
        self._appender: jsonl.Appender | None = None

    def __enter__(self) -> Results:
        if self.path.exists() and not self.path.is_file():
            what = "a folder" if self.path.is_dir() else "not a regular file"
            raise UsageError(f"{self.path} is {what}.", "Name a file with --out.")
        self._lock = _Lock(self.path)
        try:
            for _, entry in self._rows():
                self.found[entry.item] = entry
            self._appender = jsonl.Appender(self.path)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise storage_error(self.path, error) from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._appender is not None:
            self._appender.close()
        if self._lock is not None:
            self._lock.release()

    def append(self, row: dict[str, Any]) -> None:
        """Write a row and wait until it is on disk. Raises StorageError; the rows before it stay."""
        assert self._appender is not None
        self._appender.append(row)

    def drop(self, items: Collection[str]) -> None:
        """Take out the rows of these items, all at once. Raises StorageError; then nothing has changed."""
        gone = {item for item in items if item in self.found}
        if not gone:
            return
        self._rewrite(raw for raw, entry in self._rows() if entry.item not in gone)
        for item in gone:
            del self.found[item]

    def arrange(self, items: Sequence[str]) -> None:
        """Keep the latest row of each item, those of `items` last and in that order. Raises StorageError as `drop`."""
        places: dict[str, tuple[int, int]] = {}  # where in the file each row begins, and its bytes
        start, several = 0, False
        for raw, entry in self._rows():
            several |= places.pop(entry.item, None) is not None
            places[entry.item] = (start, len(raw))
            start += len(raw)
        wanted = set(items)
        order = [item for item in places if item not in wanted] + [item for item in items if item in places]
        if order != list(places) or several:
            self._rewrite(self._read_rows([places[item] for item in order]))

    def _read_rows(self, places: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for start, length in places:
                file.seek(start)
                yield file.read(length)

    def _rewrite(self, rows: Iterable[bytes]) -> None:
        assert self._appender is not None
        self._appender.close()
        try:
            self._replace(rows)
        finally:
            self._appender = jsonl.Appender(self.path)

    def _replace(self, rows: Iterable[bytes]) -> None:
        temporary = beside(self.path)
        try:
            with temporary.open("wb") as file:
                file.writelines(rows)
                file.flush()
                os.fsync(file.fileno())
            shutil.copymode(self.path, temporary)
            os.replace(temporary, self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise storage_error(self.path, error) from error

    def _rows(self) -> Iterator[tuple[bytes, Entry]]:
        """The whole rows with what they are the results of. A half-written last line is passed over."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                entry = self._read(raw)
                if entry is None and not _is_cut_off(raw):
                    raise UsageError(
                        f"{self.path} exists, and its line {number} is no result of this command.",
                        "Name another file with --out.",
                    )
                if entry is not None and raw.endswith(b"\n"):
                    yield raw, entry

    def _read(self, raw: bytes) -> Entry | None:
        try:
            row = json.loads(raw)
        except ValueError:
            return None
        return self._entry_of(row) if isinstance(row, dict) else None


def _is_cut_off(raw: bytes) -> bool:
    """Whether a line is the beginning of a row, as a crash leaves it at the end of the file."""
    if raw.endswith(b"\n") or raw[:2] != b'{"'[: len(raw)]:
        return False
    try:
        json.loads(raw)
    except ValueError:
        return True
    return False


class _Lock:
    """`.NAME.lock` beside a file, which names the process that works on it; the system lets go when that ends."""

    def __init__(self, target: Path) -> None:
        """Raises StorageError naming the process that has it."""
        self._path = target.with_name(f".{target.name}.lock")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            while not self._acquire(target):
                pass
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise storage_error(target, error) from error

    def release(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        os.close(self._file)

    def _acquire(self, target: Path) -> bool:
        """False when who held it has just removed it: then there may be a new one."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip()
            os.close(self._file)
            raise StorageError(
                f"{target} is being written by process {holder or 'unknown'}.",
                "Wait until it ends, or name another file with --out.",
            ) from None
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == os.fstat(self._file).st_ino:
                return True
        os.close(self._file)
        return False
