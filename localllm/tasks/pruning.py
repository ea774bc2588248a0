"""What interrupted work has left behind: partial downloads, runs that nobody went on with, and temporary files.

Only what this program wrote is looked at, only when it has not changed for a while, and never while somebody holds it.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localllm.paths import Home
from localllm.store.foreign.places import hub_cache
from localllm.store.registry import Registry
from localllm.tasks.removing import size_of
from localllm.tasks.runs import LOCK
from localllm.weights.beside import is_running

DAYS = 7.0
"""Without a change, before something counts as left behind."""
_TEMPORARY = re.compile(r"\..+\.(?:tmp|part)|\.staging-.+|\..+\.(?:replaced|removed)-\d+")
_PROCESS = re.compile(r"\.(\d+)\.[0-9a-f]{8}\.(?:tmp|part)$|-(\d+)$")


@dataclass(frozen=True)
class Leftover:
    """Something that can go."""

    kind: str
    """ "partial download", "run" or "temporary"."""
    paths: tuple[Path, ...]
    bytes: int
    days: float
    """Since it changed last."""


def leftovers(registry: Registry, days: float = DAYS, now: float | None = None) -> list[Leftover]:
    """Everything that has not changed for so many days."""
    now = time.time() if now is None else now
    found = [*_runs(registry.home), *_temporary(registry.home), *partial_downloads(own_cache())]
    rows = [Leftover(kind, paths, sum(map(size_of, paths)), (now - _changed(paths)) / 86400) for kind, paths in found]
    return [row for row in rows if row.days >= days]


def partial_downloads(cache: Path) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Those of this program, which have a proof beside them, that nobody is just going on with."""
    found = [*cache.glob("models--*/blobs/*.incomplete.proof"), *cache.glob("datasets--*/blobs/*.incomplete.proof")]
    for proof in sorted(found):
        part = proof.with_name(proof.name.removesuffix(".proof"))
        lock = cache / ".locks" / proof.parent.parent.name / f"{part.name.removesuffix('.incomplete')}.lock"
        if not _held(lock):
            yield "partial download", tuple(path for path in (part, proof) if path.exists())


def _runs(home: Home) -> Iterator[tuple[str, tuple[Path, ...]]]:
    for folder in sorted(home.runs.glob("*")):
        if folder.is_dir() and not _held(folder / LOCK):
            yield "run", (folder,)


def _temporary(home: Home) -> Iterator[tuple[str, tuple[Path, ...]]]:
    for folder in (home.root, home.models, home.pulled, home.adapters, home.cache):
        for path in sorted(folder.glob(".*")):
            process = _PROCESS.search(path.name)
            alive = process is not None and is_running(int(process[1] or process[2]))
            if _TEMPORARY.fullmatch(path.name) and not alive:
                yield "temporary", (path,)


def _held(lock: Path) -> bool:
    """Whether a process holds the lock, if there is one."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(descriptor)


def _changed(paths: tuple[Path, ...]) -> float:
    """When the newest of the files changed."""
    inside = [path for top in paths for path in ([top, *top.rglob("*")] if top.is_dir() else [top])]
    return max((path.lstat().st_mtime for path in inside if os.path.lexists(path)), default=0.0)


def own_cache() -> Path:
    """The hub's cache, into which this program pulls."""
    return hub_cache(os.environ, Path.home())
