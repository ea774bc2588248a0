"""What a person asked to be written: made beside its place, and renamed when it is whole."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from types import TracebackType

from localllm.errors import CancelledError, StorageError

OURS = frozenset(
    {"Modelfile", "adapter.gguf", "adapter_config.json", "adapter_model.safetensors", "adapters.safetensors",
     "base.gguf", "merged.gguf"}
)  # fmt: skip
"""Files of exports: a folder that holds nothing else may be replaced."""
PIECE = 1 << 24


class Output:
    """`path` is where to write, a file or an existing folder; `scratch` a folder for what is needed meanwhile.

    `publish` puts it in place; without it, or after an error, nothing has changed. OSError inside the block becomes
    StorageError.
    """

    def __init__(self, target: Path, *, folder: bool, overwrite: bool) -> None:
        """Raises StorageError when something is there that may not be replaced."""
        self.target, self.folder = target, folder
        self._check(overwrite)
        self.scratch = target.parent / f".{target.name}.{os.getpid()}.part"
        self.path = self.scratch / target.name

    def __enter__(self) -> Output:
        try:
            shutil.rmtree(self.scratch, ignore_errors=True)
            (self.path if self.folder else self.scratch).mkdir(parents=True)
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        if isinstance(error, OSError):
            raise self._failed(error) from error

    def publish(self) -> dict[str, int]:
        """Rename it into place. Returns the names of the files and their bytes."""
        files = sorted(self.path.iterdir()) if self.folder else [self.path]
        sizes = {file.name: file.stat().st_size for file in files}
        if self.folder and self.target.exists():
            old = self.scratch / "replaced"
            os.rename(self.target, old)
            try:
                os.rename(self.path, self.target)
            except OSError:
                os.rename(old, self.target)
                raise
        else:
            os.replace(self.path, self.target)
        return sizes

    def _check(self, overwrite: bool) -> None:
        if not self.target.name:
            raise StorageError(f"{self.target} is no name to write to.", "Give --out a new name.")
        if not self.target.exists():
            return
        if not overwrite:
            raise StorageError(f"{self.target} exists already.", "Choose another --out, or add --overwrite.")
        if self.folder != self.target.is_dir():
            kinds = ("a folder", "a file") if self.folder else ("a file", "a folder")
            raise StorageError(f"{self.target} has to be {kinds[0]}, and is {kinds[1]}.", "Choose another --out.")
        if self.folder and (others := sorted({file.name for file in self.target.iterdir()} - OURS)):
            message = f"{self.target} holds {others[0]}, which is no part of an export, so it is not replaced."
            raise StorageError(message, "Choose another --out.")

    def _failed(self, error: OSError) -> StorageError:
        where = error.filename or self.target
        return StorageError(
            f"{where} cannot be written: {error.strerror or error}.", "Check permissions and free space."
        )


def link_or_copy(source: Path, target: Path, *, copy: bool, cancel: threading.Event | None = None) -> None:
    """The same content under another name: a hard link, which takes no space, or else a copy.

    Raises CancelledError; OSError is left to the caller.
    """
    if not copy:
        try:
            os.link(source.resolve(), target)
        except OSError:  # another disk, a file system without links, or a file of somebody else's
            pass
        else:
            return
    with source.open("rb") as read, target.open("wb") as write:
        while piece := read.read(PIECE):
            if cancel is not None and cancel.is_set():
                raise CancelledError("Stopped while the base was being copied.")
            write.write(piece)
