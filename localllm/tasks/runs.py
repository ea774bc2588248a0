"""The folder of a fine-tuning run: held by one process, kept when the run is left, gone when it is finished."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from localllm.errors import CancelledError, StorageError, UsageError, VerificationError
from localllm.paths import Home
from localllm.tasks.staging import storage_error
from localllm.tune import checkpoint
from localllm.tune.job import FINISH
from localllm.tune.resume import differences
from localllm.weights.beside import is_running

LOCK = "lock"
_PATIENCE = 10.0  # seconds for the child of a parent that was killed to end


class RunFolder:
    """<home>/runs/NAME, locked while the `with` block lasts.

    Afterwards it is gone, unless the block was left with an exception and there is a step to go on from. OSError inside
    the block becomes StorageError. Raises StorageError naming the process that holds the run.
    """

    def __init__(self, home: Home, name: str) -> None:
        self.name, self.folder = name, home.runs / name
        self.lock = -1
        """Descriptor that holds the lock; a child that has it too holds on until it ends."""

    def __enter__(self) -> RunFolder:
        try:
            self._acquire()
        except OSError as error:
            raise storage_error(error, self.folder) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        at, steps = self._reached()
        if error is None or isinstance(error, VerificationError) or not at:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self.lock)
        if isinstance(error, OSError):
            raise storage_error(error, self.folder) from error
        if isinstance(error, CancelledError) and at:
            raise CancelledError(
                f"Stopped; step {at} of {steps} is saved.",
                "The same command goes on from there; with --restart it begins anew.",
            ) from None

    def begin(self, now: Mapping[str, Any], *, resume: bool = False, restart: bool = False) -> list[str]:
        """See to it that what lies in the folder may be gone on from, or that nothing lies there; returns warnings.

        Raises UsageError where a run of that name was left that had other data or settings (`now` has those of today,
        see tune.resume), or where `resume` insists on one and there is none.
        """
        (self.folder / FINISH).unlink(missing_ok=True)
        looked = checkpoint.Found(None) if restart else checkpoint.newest(self.folder)
        found = looked.checkpoint
        at = int(found.facts["step"]) if found else 0
        if found is None or not at:
            if resume:
                raise UsageError(f"There is no unfinished run named {self.name!r}.", "Leave out --resume to begin one.")
            if found is None or differences(found.facts["fingerprint"], now):
                checkpoint.remove_all(self.folder)
            lost = found is None and looked.damaged
            return [f"No checkpoint of the run {self.name!r} is whole, so it begins anew."] if lost else []
        if changed := differences(found.facts["fingerprint"], now):
            raise UsageError(
                f"The run {self.name!r}, which was left at step {at} of {found.facts['steps']}, is not the same: "
                f"{'; '.join(changed)}.",
                "Go on with what it had, or add --restart to begin anew.",
            )
        return []

    def _acquire(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / LOCK
            self.lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self.lock, 32, 0).decode("ascii", "replace").strip()
                os.close(self.lock)
                if (holder.isdigit() and is_running(int(holder))) or time.monotonic() > deadline:
                    raise StorageError(
                        f"The run {self.name!r} is going on in process {holder or 'unknown'}.",
                        "Wait until it ends, or choose another --name.",
                    ) from None
                time.sleep(0.05)
                continue
            if path.exists() and path.stat().st_ino == os.fstat(self.lock).st_ino:
                break
            os.close(self.lock)  # who held it has just removed the folder
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode(), 0)

    def _reached(self) -> tuple[int, int]:
        """(step that could be gone on from, steps in all); zeros for none."""
        found = checkpoint.newest(self.folder).checkpoint
        return (int(found.facts["step"]), int(found.facts["steps"])) if found else (0, 0)
