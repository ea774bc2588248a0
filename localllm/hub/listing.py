"""What a repository holds at one commit: files with their sizes and hashes, checked before anything relies on them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from localllm.errors import HubError, RemoteNotFoundError
from localllm.hub.http import Hub, Transient
from localllm.hub.names import is_safe
from localllm.hub.reference import bare, kind_of

MAX_FILES = 100_000
LARGEST = 1 << 42
"""Bytes of one file; more is taken for a mistake."""
_SHA1, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    path: str
    size: int
    digest: str
    """SHA-256 of the content for a file of LFS, else git's SHA-1 of the blob; the cache names blobs by it."""
    xet: str = ""
    """Its hash in Xet's storage, where it lies there."""

    @property
    def is_lfs(self) -> bool:
        return len(self.digest) == 64


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    repo: str
    """owner/name, or datasets/owner/name."""
    revision: str
    """As asked for: a branch, a tag or a commit."""
    commit: str
    files: tuple[RemoteFile, ...]
    left_out: tuple[str, ...] = ()
    """Names that cannot become paths on a disk."""
    gated: bool = False
    tags: tuple[str, ...] = ()
    license: str = ""

    def file(self, path: str) -> RemoteFile | None:
        return next((file for file in self.files if file.path == path), None)


def list_repository(hub: Hub, repo: str, revision: str = "") -> Repository:
    """Ask for a repository's commit and the files of that commit.

    Raises RemoteNotFoundError with the nearest names, AccessError and UnreachableError.
    """
    asked = revision or "main"
    address = f"{_api(hub, repo)}/{bare(repo)}"
    try:
        info, _ = persistently(hub, lambda: hub.json(f"{address}/revision/{quote(asked, safe='')}", repo))
    except RemoteNotFoundError as error:
        if "no such revision" in error.message:
            raise RemoteNotFoundError(f"{repo} has no revision {asked!r}.", error.hint) from error
        near = [name for name in nearest(hub, repo) if name != bare(repo)]
        hint = f"Did you mean {' or '.join(near)}? {error.hint}" if near else error.hint
        raise RemoteNotFoundError(error.message, hint) from error
    commit = info.get("sha") if isinstance(info, dict) else None
    if not isinstance(commit, str) or not _SHA1.fullmatch(commit):
        raise _strange(hub, repo)
    files, left_out = _tree(hub, repo, f"{address}/tree/{commit}")
    tags = tuple(tag for tag in info.get("tags") or () if isinstance(tag, str))
    licenses = [tag.partition(":")[2] for tag in tags if tag.startswith("license:")]
    return Repository(
        repo, asked, commit, tuple(files), tuple(left_out), bool(info.get("gated")), tags, (licenses or [""])[0]
    )  # fmt: skip


def nearest(hub: Hub, repo: str) -> list[str]:
    """Names of repositories that are like this one, as far as the hub's search knows; nothing when it fails."""
    owner, _, name = bare(repo).partition("/")
    found: list[str] = []
    for query in ({"author": owner}, {"search": name}):
        try:
            rows, _ = hub.json(_api(hub, repo), repo, {**query, "limit": "100"})
        except (Transient, HubError):
            continue
        found += [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
    return get_close_matches(bare(repo), sorted(set(found)), n=3, cutoff=0.6)


def persistently(hub: Hub, ask: Callable[[], T]) -> T:
    """The answer to a small question, asked again while what fails may pass."""
    failed = 0
    while True:
        try:
            return ask()
        except Transient as failure:
            failed += 1
            hub.wait(hub.pause(failure, failed))


def _tree(hub: Hub, repo: str, address: str) -> tuple[list[RemoteFile], list[str]]:
    """All pages. Raises HubError for what is no list of files."""
    files: list[RemoteFile] = []
    left_out: list[str] = []
    following, seen = f"{address}?recursive=true&expand=false", set[str]()
    while following:
        if following in seen or len(files) + len(left_out) > MAX_FILES:
            raise HubError(f"{repo} has more files than can be handled.", "Take another repository.")
        seen.add(following)
        page = following
        rows, link = persistently(hub, partial(hub.json, page, repo))
        if not isinstance(rows, list):
            raise _strange(hub, repo)
        for row in rows:
            if isinstance(row, dict) and row.get("type") == "file":
                path = row.get("path")
                if isinstance(path, str) and is_safe(path):
                    files.append(_file(hub, repo, row))
                else:
                    left_out.append(str(path))
        following = _same_host(urljoin(page, link), hub, repo) if link else ""
    return files, left_out


def _file(hub: Hub, repo: str, row: dict[str, Any]) -> RemoteFile:
    """One row of the tree, as huggingface_hub reads it, with everything checked."""
    from huggingface_hub.hf_api import RepoFile

    try:
        read = RepoFile(**row)  # type: ignore[no-untyped-call]
        size = read.lfs.size if read.lfs else read.size
        digest = read.lfs.sha256 if read.lfs else read.blob_id
        pattern = _SHA256 if read.lfs else _SHA1
        if not isinstance(size, int) or not 0 <= size <= LARGEST or not pattern.fullmatch(digest):
            raise ValueError
        xet = read.xet_hash if isinstance(read.xet_hash, str) and _SHA256.fullmatch(read.xet_hash) else ""
        return RemoteFile(read.path, size, digest, xet)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _strange(hub, repo) from None


def _api(hub: Hub, repo: str) -> str:
    """Where the hub tells of repositories of this kind."""
    return f"{hub.here.endpoint}/api/{kind_of(repo)}s"


def _same_host(address: str, hub: Hub, repo: str) -> str:
    """The next page comes from where the first did; a mirror may name the public hub in its place."""
    parts = urlsplit(address)
    _, api, rest = parts.path.partition(f"/api/{kind_of(repo)}s/")
    if not api:
        raise _strange(hub, repo)
    return f"{hub.here.endpoint}{api}{rest}?{parts.query}"


def _strange(hub: Hub, repo: str) -> HubError:
    return HubError(f"{hub.here.host} does not tell of {repo} as a hub does.", "Check HF_ENDPOINT and any proxy.")
