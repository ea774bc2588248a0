"""Where a large file is written before it has its name: beside it, so that renaming is instant and on the same disk."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from localllm.errors import StorageError

_ENDING = r"(?:\.(\d+)\.[0-9a-f]{8}\.part)+"  # more than one where a file beside another was made in two steps


def beside(target: Path) -> Path:
    """A new name next to `target`. What processes that were killed have left there for it is removed.

    Makes the folder. Raises StorageError where no file can be.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise StorageError(f"{target} is a folder.", "Give the name of a file in it.")
        _remove_abandoned(target)
    except OSError as error:
        raise storage_error(target, error) from error
    return target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")


def check_room(target: Path, nbytes: int, least: str = "") -> None:
    """Raises StorageError unless the disk of `target` has that much free; `least` is " at least" for an estimate."""
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise storage_error(target, error) from error
    if nbytes > free:
        need, have = f"{nbytes / 1e6:.0f} MB", f"{free / 1e6:.0f} MB"
        message = f"{_meant(target)} takes{least} {need}, and its disk has {have} free."
        raise StorageError(message, "Free some, or choose another place.")


def storage_error(target: Path, error: OSError) -> StorageError:
    """What the system says of a file that cannot be written, with what to do."""
    return StorageError(f"Cannot write {_meant(target)} ({error.strerror}).", "Check permissions and free space.")


def _meant(path: Path) -> Path:
    """The file that a person asked for, where `path` stands beside it."""
    found = re.fullmatch(r"\.+(.+?)" + _ENDING, path.name)
    return path.with_name(found[1]) if found else path


def _remove_abandoned(target: Path) -> None:
    ours = re.compile(r"\.+" + re.escape(target.name) + _ENDING)
    for path in target.parent.iterdir():
        found = ours.fullmatch(path.name)
        if found and not is_running(int(found[1])):
            with suppress(OSError):
                path.unlink()


def is_running(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
