"""Files of a repository into the cache: each locked, resumed, hashed, renamed and pointed to; the reference last."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from localllm.errors import IntegrityError, StorageError
from localllm.hub import xet
from localllm.hub.cache import RepoCache, storing
from localllm.hub.events import Checking, Damaged, Fetched, HubEvent, Progress, Retrying, Waiting
from localllm.hub.http import Hub
from localllm.hub.listing import RemoteFile, Repository
from localllm.hub.partial import Partial, digest_of
from localllm.hub.refusals import RefusedError
from localllm.hub.transfer import transfer

SPARE = 64 << 20
"""Bytes of the disk that are left free."""
_WINDOW = 5.0
_SHOWN = 0.1
"""Seconds over which a speed is taken, and between two events of progress."""


class Meter:
    """How far everything has come, and how fast."""

    def __init__(self, total: int) -> None:
        self.total, self.before = total, 0
        self._recent: deque[tuple[float, int]] = deque()
        self._shown = 0.0

    def progress(self, file: RemoteFile, done: int, *, now: float | None = None) -> Progress | None:
        """An event, unless the last one was a moment ago."""
        now = time.monotonic() if now is None else now
        if now - self._shown < _SHOWN and done < file.size:
            return None
        self._shown = now
        all_done = self.before + done
        self._recent.append((now, all_done))
        while len(self._recent) > 2 and now - self._recent[0][0] > _WINDOW:
            self._recent.popleft()
        then, had = self._recent[0]
        speed = max(0.0, (all_done - had) / (now - then)) if now > then else 0.0
        left = (self.total - all_done) / speed if speed > 0 else None
        return Progress(file.path, done, file.size, all_done, self.total, speed, left)

    def restart(self) -> None:
        """What follows is not part of the same flow: bytes that were there before have no speed."""
        self._recent.clear()
        self._shown = 0.0


def download(
    hub: Hub, repository: Repository, files: Sequence[RemoteFile], trusted: Callable[[Path], str] | None = None
) -> Iterator[HubEvent]:
    """Fetch files; each ends with Fetched. `trusted` gives the SHA-256 of a blob that is there, which it may remember.

    Raises HubError, StorageError and CancelledError; what has arrived is then kept, except for what proved wrong.
    """
    cache = RepoCache(hub.here.cache, repository.repo, symlinks=hub.here.symlinks)
    cache.prepare()
    _check_space(cache, files)
    meter = Meter(sum(file.size for file in files))
    for file in files:
        yield from _one(hub, cache, repository, file, meter, trusted)
        meter.before += file.size
        meter.restart()
    cache.refer(repository.revision, repository.commit)


def missing(cache: RepoCache, files: Sequence[RemoteFile]) -> int:
    """Bytes that are still to be fetched, as far as sizes tell."""
    total = 0
    for digest, size in {file.digest: file.size for file in files}.items():
        if not cache.blob(digest).exists():
            partial = cache.incomplete(digest)
            total += size - min(size, partial.stat().st_size if partial.exists() else 0)
    return total


def _check_space(cache: RepoCache, files: Sequence[RemoteFile]) -> None:
    needed, free = missing(cache, files), cache.free()
    if needed and needed + SPARE > free:
        message = f"{_size(needed)} are still to come, and the disk of {cache.root} has {_size(free)} left; "
        message += f"{_size(SPARE)} of it are not filled."
        raise StorageError(message, "Free some space, or let HF_HOME name a folder on another disk.")


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _one(
    hub: Hub,
    cache: RepoCache,
    repository: Repository,
    file: RemoteFile,
    meter: Meter,
    trusted: Callable[[Path], str] | None,
) -> Iterator[HubEvent]:
    received = kept = 0
    with cache.locked(file.digest, hub) as turns, storing(cache.root):
        for _ in turns:
            yield Waiting(file.path)
        blob = cache.blob(file.digest)
        whole = False
        if blob.exists():
            yield Checking(file.path, 0, file.size)
            whole = _is_whole(blob, file, trusted)
            if not whole:
                yield Damaged(file.path)
        if not whole:
            with Partial(cache.incomplete(file.digest), file) as partial:
                for done in partial.take_up():
                    yield Checking(file.path, done, file.size)
                kept = partial.position
                yield from _arrive(hub, repository, file, partial, meter)
                received = file.size - kept
                partial.publish(blob)
        where = cache.point(repository.commit, file.path, file.digest)
    yield Fetched(file.path, where, file.size, received, kept)


def _arrive(
    hub: Hub, repository: Repository, file: RemoteFile, partial: Partial, meter: Meter
) -> Iterator[Progress | Retrying]:
    """All bytes, verified. Raises IntegrityError, the file then being deleted."""
    through_xet = xet.needs_xet(file)
    if not through_xet:
        try:
            for event in transfer(hub, repository, file, partial):
                shown = event if isinstance(event, Retrying) else meter.progress(file, event)
                if shown is not None:
                    yield shown
        except RefusedError:  # plain HTTP is not the way to it
            if not xet.can_xet(file):
                raise
            through_xet = True
    if through_xet:
        for done in xet.fetch(hub, repository, file, partial):
            if (progress := meter.progress(file, done)) is not None:
                yield progress
    digest = digest_of(partial.path, file) if through_xet else partial.finish()
    if digest != file.digest:
        partial.discard()
        raise IntegrityError(
            f"{file.path} did not arrive as the hub has it (hash {digest[:12]} instead of {file.digest[:12]}); "
            "what arrived has been deleted.",
            "Run it again; if it happens again, check any proxy, and that the disk and the memory are sound.",
        )


def _is_whole(blob: Path, file: RemoteFile, trusted: Callable[[Path], str] | None) -> bool:
    """Whether a blob is what its name says; other programs check its size at most."""
    if blob.stat().st_size != file.size:
        return False
    return (trusted(blob) if trusted and file.is_lfs else digest_of(blob, file)) == file.digest
