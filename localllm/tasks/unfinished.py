"""Fine-tuning runs that were left: what was asked of each is kept in its folder, so that it can be asked again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localllm.engine import wire
from localllm.errors import StorageError
from localllm.paths import Home
from localllm.tasks.curves import points
from localllm.tasks.preparing import FinetuneRequest, Prepared, steps_of
from localllm.tasks.runs import LOCK
from localllm.tune import checkpoint
from localllm.tune.job import FINISH

REQUEST = "request.json"
_PATHS = ("data", "mlx", "valid", "test")


@dataclass(frozen=True)
class Asked:
    """What is kept of a run."""

    request: FinetuneRequest
    steps: int
    """Of the whole run."""


@dataclass(frozen=True)
class Unfinished:
    """A run that nobody is at, and that can be gone on with."""

    request: FinetuneRequest
    """What goes on from there; paths are absolute."""
    step: int
    """Steps that are saved."""
    steps: int

    @property
    def name(self) -> str:
        return self.request.name


def note(folder: Path, request: FinetuneRequest, prepared: Prepared) -> None:
    """Keep what was asked in the run's folder."""
    found = {name: path.absolute() for name in _PATHS if (path := getattr(request, name)) is not None}
    changes: dict[str, Any] = {**found, "resume": True, "restart": False, "finish": False}
    if request.rehearse is not None:
        changes["rehearse"] = replace(request.rehearse, path=request.rehearse.path.absolute())
    model = Path(request.model)
    changes["model"] = str(model.absolute()) if model.exists() else request.model
    line = wire.encode(Asked(replace(request, **changes), steps_of(prepared)))
    (folder / REQUEST).write_bytes(line)


def unfinished(home: Home) -> list[Unfinished]:
    """The runs that were left after at least one step, the one that was left last first."""
    if not home.runs.is_dir():
        return []
    found = [(_left_at(folder), run) for folder in home.runs.iterdir() if (run := _read(folder)) is not None]
    return [run for _, run in sorted(found, key=lambda pair: -pair[0])]


def curves_so_far(home: Home, name: str) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(step, loss) of the steps that are saved of a run, and of its validations."""
    found = checkpoint.newest(home.runs / name).checkpoint
    events = [json.loads(line) for line in found.facts["progress"]["log"]] if found else []
    return points(events, "step"), points(events, "evaluated")


def forget(home: Home, name: str) -> None:
    """Remove a run that was left. Raises StorageError where it is going on, or cannot be removed."""
    folder = home.runs / name
    if _held(folder):
        raise StorageError(f"The run {name!r} is going on.", "Stop it first.")
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(f"{folder} cannot be removed ({error.strerror}).", "Check its permissions.") from error


def ask_to_finish(folder: Path) -> None:
    """Have the run in the folder end after its present step with the best so far. Raises StorageError."""
    try:
        (folder / FINISH).touch()
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}).", "Stop the run instead.") from error


def _read(folder: Path) -> Unfinished | None:
    """None for what is no run, has no step to go on from, is going on, or was begun by another version."""
    step = checkpoint.last_step(folder)
    if not step or _held(folder):
        return None
    try:
        asked: Asked = wire.decode((folder / REQUEST).read_bytes(), Asked)
    except (OSError, ValueError):
        return None
    return Unfinished(asked.request, step, asked.steps)


def _held(folder: Path) -> bool:
    """Whether a process is at the run."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _left_at(folder: Path) -> float:
    with suppress(OSError):
        return max(path.stat().st_mtime for path in folder.iterdir())
    return 0.0
