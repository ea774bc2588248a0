"""The layout of huggingface_hub's cache, so that nothing is stored twice and `hf cache` sees what we fetch.

    models--OWNER--NAME/            (datasets--OWNER--NAME for a dataset)
        blobs/HASH                  a file's content, named by its hash
        blobs/HASH.incomplete       what has arrived of it, and HASH.incomplete.proof (partial.py)
        snapshots/COMMIT/PATH       -> ../../blobs/HASH
        refs/REVISION               the commit that a branch or tag was at
    .locks/models--OWNER--NAME/HASH.lock

Order of writing: blob, pointer, reference, so that whatever is named is complete.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from localllm.errors import StorageError
from localllm.hub.http import Hub
from localllm.hub.names import is_safe
from localllm.hub.reference import bare, kind_of


class RepoCache:
    """The part of the cache that belongs to one repository."""

    def __init__(self, cache: Path, repo: str, *, symlinks: bool = True) -> None:
        self.root, self.repo, self._symlinks = cache, repo, symlinks
        name = "--".join((f"{kind_of(repo)}s", *bare(repo).split("/")))
        self.folder = cache / name
        self._locks = cache / ".locks" / name

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs" / digest

    def incomplete(self, digest: str) -> Path:
        return self.folder / "blobs" / f"{digest}.incomplete"

    def pointer(self, commit: str, path: str) -> Path:
        """Where a file of a commit is found. Raises StorageError for a path that would leave the folder."""
        if not is_safe(path) or not is_safe(commit):
            raise StorageError(f"{path!r} cannot be the name of a file here.", "Choose another file.")
        return self.snapshot(commit).joinpath(*path.split("/"))

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def prepare(self) -> None:
        """Make the folders. Raises StorageError when they cannot be written."""
        with storing(self.root):
            for folder in (self.folder / "blobs", self.folder / "snapshots", self._locks):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / "blobs" / f".{secrets.token_hex(4)}.tmp"
            probe.touch()
            probe.unlink()

    @contextmanager
    def locked(self, digest: str, hub: Hub) -> Iterator[Iterator[None]]:
        """Hold the lock that huggingface_hub takes for this blob; a step of what is given waits for a moment longer.

        The iterator ends once the lock is held, and has to be run to its end.
        """
        from filelock import Timeout
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

        held: list[Any] = []

        def waiting() -> Iterator[None]:
            while not held:
                hub.check_cancelled()
                lock = WeakFileLock(self._locks / f"{digest}.lock", timeout=0.3)
                try:
                    lock.__enter__()
                    held.append(lock)
                except Timeout:
                    yield

        try:
            with storing(self.root):
                yield waiting()
        finally:
            for lock in held:
                lock.__exit__(None, None, None)

    def point(self, commit: str, path: str, digest: str) -> Path:
        """Make a commit's file lead to its blob, in one step; a copy where there are no symbolic links."""
        pointer, blob = self.pointer(commit, path), self.blob(digest)
        with storing(pointer):
            pointer.parent.mkdir(parents=True, exist_ok=True)
            temporary = pointer.with_name(f".{secrets.token_hex(6)}.tmp")
            try:
                self._lead(temporary, blob, os.path.relpath(blob, pointer.parent))
                os.replace(temporary, pointer)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
        return pointer

    def _lead(self, link: Path, blob: Path, target: str) -> None:
        if self._symlinks:
            try:
                link.symlink_to(target)
                return
            except OSError:
                pass  # a file system without them
        try:
            os.link(blob, link)
        except OSError:
            shutil.copyfile(blob, link)

    def refer(self, revision: str, commit: str) -> None:
        """Note which commit a branch or tag was at."""
        if revision == commit or not is_safe(revision):
            return
        reference = self.folder / "refs" / revision
        with storing(reference):
            reference.parent.mkdir(parents=True, exist_ok=True)
            temporary = reference.with_name(f".{reference.name[:100]}.{secrets.token_hex(4)}.tmp")
            temporary.write_text(commit)
            os.replace(temporary, reference)

    def free(self) -> int:
        """Bytes that the disk of the cache has left."""
        folder = next(f for f in (self.folder, *self.folder.parents) if f.exists())
        with storing(folder):
            return shutil.disk_usage(folder).free


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """What the system refuses, as StorageError."""
    try:
        yield
    except OSError as error:
        hint = "Free some space, or let HF_HOME name a folder on another disk; what has arrived is kept."
        if error.errno not in (28, 122, 27):  # no space, over quota, file too large
            hint = "Check its permissions, or let HF_HOME name a folder that can be written."
        raise StorageError(f"{error.filename or path}: {error.strerror or error}.", hint) from error
