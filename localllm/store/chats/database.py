"""The connection to the file of conversations: safe beside other windows, and short of any wait.

Every change is one short transaction, begun with the write lock, so that two windows wait for each other a moment and
never fail in the middle. The write-ahead log is used only where SQLite has the correction of 3.51.3, before which two
connections could corrupt it; elsewhere a rollback journal is.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from localllm.errors import StorageError
from localllm.store.chats.schema import migrate

WAL_SINCE = (3, 51, 3)
BUSY_SECONDS = 10.0
"""How long a change waits for another window's."""
_HINT = "Check permissions and free space."


class Database:
    """One connection, which any thread may use; `path` None keeps everything in memory only."""

    def __init__(self, path: Path | None, *, sqlite: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
        """Open or create. Raises StorageError."""
        self.path = path
        self._lock = threading.RLock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._prepare(sqlite)
            if path is not None:
                path.chmod(0o600)
        except (sqlite3.Error, OSError) as error:
            raise _translated(error, path) from error

    def _prepare(self, sqlite: tuple[int, ...]) -> None:
        wanted = "wal" if sqlite >= WAL_SINCE else "delete"
        try:
            got = self._connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
        except sqlite3.OperationalError:  # locked: another window is just using it
            got = self._connection.execute("PRAGMA journal_mode").fetchone()[0]
        if got == "wal" and wanted != "wal":
            raise StorageError(
                "The conversations are open in a program with a newer SQLite, beside which this one could damage them.",
                "Close that one, or use another LOCALLLM_HOME.",
            )
        self._connection.execute("PRAGMA foreign_keys = ON")
        self._connection.execute("PRAGMA secure_delete = ON")
        migrate(self._connection)

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, at once: an open cursor would hold other windows up. Raises StorageError."""
        with self._lock, self._errors():
            return self._connection.execute(statement, values).fetchall()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is saved at the end, or nothing. Raises StorageError."""
        with self._lock, self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error


def _translated(error: sqlite3.Error | OSError, path: Path | None) -> StorageError:
    if isinstance(error, OSError):
        return StorageError(f"The conversations in {path} cannot be opened ({error.strerror}).", _HINT)
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return StorageError(f"{path} has been in use by another program for too long.", "Close it and try again.")
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
        return StorageError(f"{path} is damaged or no file of conversations ({error}).", "Move it to another place.")
    return StorageError(f"The conversations in {path} cannot be read or saved ({error}).", _HINT)
