"""Where an adapter is made: a folder that is removed again unless the adapter is published."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType

from localllm.errors import StorageError
from localllm.paths import Home
from localllm.weights.beside import is_running


class Staging:
    """`folder` becomes the adapter; it is gone after the `with` block. OSError inside becomes StorageError."""

    def __init__(self, home: Home, name: str) -> None:
        self.folder = home.adapters / f".staging-{name}-{os.getpid()}"

    def __enter__(self) -> Staging:
        try:
            _remove_abandoned(self.folder.parent, self.folder.name.rpartition("-")[0])
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise storage_error(error, self.folder.parent) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise storage_error(error, self.folder.parent) from error

    def set_aside(self, target: Path) -> Path:
        """Keep the folder under another name, replacing what an earlier run left there."""
        shutil.rmtree(target, ignore_errors=True)
        self.folder.rename(target)
        return target


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Folders of earlier runs of the same name whose process is gone, and any of our own number."""
    for folder in parent.glob(f"{prefix}-*"):
        number = folder.name.removeprefix(f"{prefix}-")
        if number.isdigit() and (int(number) == os.getpid() or not is_running(int(number))):
            shutil.rmtree(folder, ignore_errors=True)


def storage_error(error: OSError, folder: Path) -> StorageError:
    """What to say when a folder cannot be written."""
    where = error.filename or folder
    return StorageError(f"{where} cannot be written: {error.strerror or error}.", "Check permissions and free space.")
