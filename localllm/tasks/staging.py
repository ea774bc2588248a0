"""Where an adapter is made: folders that are removed again unless the adapter is published."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from types import TracebackType

from localllm.errors import StorageError
from localllm.paths import Home


class Staging:
    """`folder` becomes the adapter, `work` holds what its making needs; both are gone after the `with` block.

    OSError inside the block becomes StorageError.
    """

    def __init__(self, home: Home, name: str) -> None:
        self.folder = home.adapters / f".staging-{name}-{os.getpid()}"
        self.work = home.runs / f"{name}-{os.getpid()}"

    def __enter__(self) -> Staging:
        try:
            for folder in (self.folder, self.work):
                _remove_abandoned(folder.parent, folder.name.rpartition("-")[0])
                folder.mkdir(parents=True)
        except OSError as error:
            self._remove()
            raise _storage_error(error, self.folder.parent) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()
        if isinstance(error, OSError):
            raise _storage_error(error, self.folder.parent) from error

    def set_aside(self, target: Path) -> Path:
        """Keep the folder under another name, replacing what an earlier run left there."""
        shutil.rmtree(target, ignore_errors=True)
        self.folder.rename(target)
        return target

    def _remove(self) -> None:
        for folder in (self.folder, self.work):
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Folders of earlier runs of the same name whose process is gone, and any of our own number."""
    for folder in parent.glob(f"{prefix}-*"):
        number = folder.name.removeprefix(f"{prefix}-")
        if number.isdigit() and (int(number) == os.getpid() or not _runs(int(number))):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    with contextlib.suppress(PermissionError):  # somebody else's process: it runs
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def _storage_error(error: OSError, folder: Path) -> StorageError:
    where = error.filename or folder
    return StorageError(f"{where} cannot be written: {error.strerror or error}.", "Check permissions and free space.")
