"""A dataset of the hub by its name: its training and validation files in the hub's cache, verified like a model's."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from localllm.data.folders import SUFFIXES, find_splits, split_names
from localllm.data.tables import check_parquet
from localllm.errors import DataError, RemoteNotFoundError, StorageError, UnreachableError
from localllm.hub.cache import RepoCache
from localllm.hub.download import download, missing
from localllm.hub.events import Fetched, HubEvent
from localllm.hub.http import Hub, Limits
from localllm.hub.listing import RemoteFile, Repository, list_repository
from localllm.hub.names import is_safe
from localllm.hub.reference import Reference, bare, parse_dataset
from localllm.hub.surroundings import HOSTS, Surroundings, surroundings
from localllm.store.registry import Registry
from localllm.tasks.pull import Noted

LEARNED = ("train", "valid")
"""What fine-tuning reads; the test files are fetched only where they are asked for."""
_MARKS = ("hf://", "https://", "http://", "datasets/", *(f"{host}/" for host in HOSTS))
_CONVERTED = "refs/convert/parquet"
"""The branch in which the hub keeps a dataset of another kind as Parquet, where it could convert it."""


@dataclass(frozen=True)
class DatasetListed:
    """The repository was read and its files chosen."""

    name: str
    commit: str
    files: int
    bytes: int
    to_fetch: int
    """Bytes that are not here yet."""


@dataclass(frozen=True)
class DatasetHere:
    """The files are here: a file, or a folder as `data.folders` reads it."""

    path: Path
    name: str
    """owner/name, with the path in it where one was given."""
    commit: str
    received: int = 0
    """Bytes that came over the network now."""

    @property
    def label(self) -> str:
        """What training remembers of where its rows came from."""
        return f"{self.name}@{self.commit[:12]}"

    @property
    def short(self) -> str:
        """A name for what is made from it."""
        return PurePosixPath(self.name).stem


DatasetEvent = DatasetListed | Noted | HubEvent | DatasetHere


def may_be_dataset(text: str) -> bool:
    """Whether this names a dataset of the hub: no path that is here, nor one that a person meant for the disk."""
    if text.lower().startswith(_MARKS):
        return not Path(text).exists()
    parts = text.split("/")
    if len(parts) < 2 or text.startswith((".", "/", "~")) or Path(parts[0]).exists():
        return False
    return len(parts) > 2 or PurePosixPath(text).suffix.lower() not in (*SUFFIXES, ".txt", ".md")


def fetch_dataset(
    registry: Registry,
    text: str,
    revision: str = "",
    splits: Sequence[str] = LEARNED,
    cancel: threading.Event | None = None,
    here: Surroundings | None = None,
    limits: Limits | None = None,
) -> Iterator[DatasetEvent]:
    """Fetch what training needs of a dataset; the last event is DatasetHere.

    Where the hub cannot be asked, what was fetched before is used. Raises UsageError, DataError for a repository whose
    files are not clear, HubError, StorageError and CancelledError; what has arrived is kept.
    """
    here = here or surroundings()
    asked = parse_dataset(text, here.host)
    asked = replace(asked, revision=revision) if revision else asked
    with Hub(here, limits, cancel) as hub:
        try:
            repository = list_repository(hub, asked.repo, asked.revision)
        except UnreachableError as error:
            yield from _already(here, asked, error)
            return
        files = _chosen(repository, asked, splits)
        for file in files:
            if file.path.lower().endswith(".parquet"):
                check_parquet(Path(bare(asked.repo)) / file.path)  # before anything is fetched
        cache = RepoCache(here.cache, asked.repo)
        total = sum(file.size for file in files)
        yield DatasetListed(bare(str(asked)), repository.commit, len(files), total, missing(cache, files))
        received = 0
        for event in download(hub, repository, files, registry.sha256):
            yield event
            received += event.received if isinstance(event, Fetched) else 0
    yield DatasetHere(_place(cache, asked, repository.commit), bare(str(asked)), repository.commit, received)


def _place(cache: RepoCache, asked: Reference, commit: str) -> Path:
    return cache.pointer(commit, asked.file) if asked.file else cache.snapshot(commit)


def _chosen(repository: Repository, asked: Reference, splits: Sequence[str]) -> list[RemoteFile]:
    """The files to fetch. Raises DataError where it is open which, RemoteNotFoundError for a path that is not there."""
    if asked.file and (file := repository.file(asked.file)):
        return [file]
    inside = f"{asked.file}/" if asked.file else ""
    by_name = {f.path.removeprefix(inside): f for f in repository.files if f.path.startswith(inside)}
    if not by_name and asked.file:
        there = ", ".join(sorted({file.path.partition("/")[0] for file in repository.files})[:8]) or "nothing"
        raise RemoteNotFoundError(f"{bare(asked.repo)} has no {asked.file}.", f"It holds {there}.")
    name = bare(str(asked))
    data = [path for path in by_name if PurePosixPath(path).suffix.lower() in SUFFIXES]
    try:
        found = split_names(list(by_name), Path(name), splits)
    except DataError as error:
        raise DataError(error.message, _instead(name, data or list(by_name))) from None
    return [by_name[path] for paths in found.values() for path in paths]


def _instead(name: str, files: Sequence[str]) -> str:
    """What to ask for where the repository as a whole is not clear."""
    if not any(PurePosixPath(path).suffix.lower() in SUFFIXES for path in files):
        return f"It holds {', '.join(files[:4])}. The hub may have it as Parquet: add --revision {_CONVERTED}."
    first = PurePosixPath(sorted(files)[0])
    several = len({PurePosixPath(path).parent for path in files}) > 1 and first.parent.name
    return f"Name one of its files or folders, as {name}/{first.parent if several else first}."


def _already(here: Surroundings, asked: Reference, error: UnreachableError) -> Iterator[DatasetEvent]:
    """Without the hub, what is in the cache will do if it is complete. Raises the error otherwise."""
    cache = RepoCache(here.cache, asked.repo)
    wanted = asked.revision or "main"
    reference = cache.folder / "refs" / wanted
    try:
        if not is_safe(wanted):
            raise error
        commit = reference.read_text().strip() if reference.is_file() else wanted
        path = _place(cache, asked, commit)
        if not find_splits(path).train[0].is_file():
            raise error
    except (OSError, UnicodeDecodeError, DataError, StorageError):
        raise error from None
    yield Noted(f"{error.message} What was fetched before is used.")
    yield DatasetHere(path, bare(str(asked)), commit)
