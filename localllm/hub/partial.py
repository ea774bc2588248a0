"""A file that is still arriving: written and hashed as it comes, and proven again by the next process.

Beside HASH.incomplete lies HASH.incomplete.proof, to which a line is added at every step of the way:

    {"digest": ..., "size": ..., "etag": ...}      what the file is to become; the ETag of the server that sends it
    8388608 5f1c...                                after so many bytes, the hash of all of them

The next process reads what is there, compares the hashes at the same places, and keeps what lies before the first
that differs: nothing is believed of a file that a crash may have left with holes. What lies after the last line is
fetched again, at most one step.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from localllm.errors import StorageError
from localllm.hub.listing import RemoteFile

STEP = 8 << 20
"""Bytes between two lines of the proof."""
_BLOCK = 1 << 20
_WAITING = 16
"""Blocks that may wait to be hashed."""


def hasher(file: RemoteFile) -> Any:
    """The running hash by which the hub names this file."""
    if file.is_lfs:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)  # as git hashes a blob


def digest_of(path: Path, file: RemoteFile) -> str:
    """The hash of a file on disk, of the kind that the hub gives for this one. Raises OSError."""
    running = hasher(file)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            running.update(block)
    return str(running.hexdigest())


class Partial:
    """The incomplete file of one download; only whoever holds the lock of its blob may open it."""

    def __init__(self, path: Path, file: RemoteFile) -> None:
        self.path, self.file = path, file
        self.proof = path.with_name(f"{path.name}.proof")
        self.etag = ""
        self.position = 0
        """Bytes that are there, all but the last few blocks hashed."""
        self._hashed = self._proven = 0
        self._hash = hasher(file)
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._failure: BaseException | None = None
        self._hashing: threading.Thread | None = None
        self._file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")

    def take_up(self) -> Iterator[int]:
        """Read what an earlier process left and keep what is proven; yields how far it has come. Raises OSError."""
        marks = self._marks()
        good, good_hash = 0, self._hash.copy()
        for mark, digest in marks:
            while self.position < mark and (block := self._file.read(min(_BLOCK, mark - self.position))):
                self._hash.update(block)
                self.position += len(block)
                yield self.position
            if self.position != mark or self._hash.hexdigest() != digest:
                break
            good, good_hash = mark, self._hash.copy()
        self._hash, self.position = good_hash, good
        self._file.truncate(good)
        self._file.seek(good)
        self._hashed = self._proven = good
        self._write_marks([mark for mark in marks if mark[0] <= good])

    def begin_again(self) -> None:
        """Forget everything that has arrived."""
        self._drain()
        self._file.seek(0)
        self._file.truncate(0)
        self._hash, self.position, self._hashed, self._proven = hasher(self.file), 0, 0, 0
        self._write_marks([])

    def expect(self, etag: str) -> None:
        """Remember the ETag of the server that sends it."""
        if etag != self.etag:
            self._drain()
            marks = self._marks()
            self.etag = etag
            self._write_marks(marks)

    def write(self, block: bytes) -> None:
        """Write what comes next; it is hashed in another thread. Raises OSError, also of the proof."""
        if self._hashing is None:
            self._hashing = threading.Thread(target=self._run, daemon=True)
            self._hashing.start()
        rest = memoryview(block)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._blocks.put(block)
        self.position += len(block)
        self._check()

    def finish(self) -> str:
        """Wait until all is on the disk; the hash of the whole file. Raises StorageError and OSError."""
        self._drain()
        os.fsync(self._file.fileno())
        return str(self._hash.hexdigest())

    def close(self) -> None:
        """Stop, keeping what has arrived with a proof of all of it."""
        try:
            self._drain()
            self._prove()
        except (OSError, StorageError):
            pass  # what is proven stays proven
        finally:
            self._file.close()

    def publish(self, blob: Path) -> None:
        """Give the finished file the name by which it counts as complete. Raises OSError."""
        self._file.close()
        os.replace(self.path, blob)
        self.proof.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the file and its proof."""
        self._file.close()
        self.path.unlink(missing_ok=True)
        self.proof.unlink(missing_ok=True)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if not self._file.closed:
            self.close()

    # The hashing thread

    def _run(self) -> None:
        while (block := self._blocks.get()) is not None:
            if self._failure is None:
                try:
                    self._take(block)
                except BaseException as failure:
                    self._failure = failure  # raised by the thread that writes

    def _take(self, block: bytes) -> None:
        self._hash.update(block)
        self._hashed += len(block)
        if self._hashed - self._proven >= STEP:
            self._prove()

    def _prove(self) -> None:
        if self._hashed > self._proven:
            with self.proof.open("a") as proof:
                proof.write(f"{self._hashed} {self._hash.hexdigest()}\n")
            self._proven = self._hashed

    def _drain(self) -> None:
        if self._hashing is not None:
            self._blocks.put(None)
            self._hashing.join()
            self._hashing = None
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    # The proof

    def _marks(self) -> list[tuple[int, str]]:
        """(bytes, hash) in order; none where the proof is of something else or cannot be read."""
        try:
            head, *lines = self.proof.read_text("utf-8").splitlines()
            said = json.loads(head)
            if (said["digest"], said["size"]) != (self.file.digest, self.file.size):
                return []
            self.etag = str(said.get("etag", ""))
            marks = []
            for line in lines:
                count, _, digest = line.partition(" ")
                if not count.isdigit() or len(digest) != len(self.file.digest):
                    break  # the line that a crash cut short
                marks.append((int(count), digest))
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return [mark for mark in marks if mark[0] <= self.file.size]

    def _write_marks(self, marks: list[tuple[int, str]]) -> None:
        head = json.dumps({"digest": self.file.digest, "size": self.file.size, "etag": self.etag})
        lines = [head, *(f"{count} {digest}" for count, digest in marks)]
        temporary = self.proof.with_name(f"{self.proof.name}.new")
        temporary.write_text("\n".join(lines) + "\n", "utf-8")
        os.replace(temporary, self.proof)
