"""The bytes of one file by ranged reads, from wherever they had got to, whatever the other side does.

Every answer is held against what was asked: the hub's hash of the file, the range that begins, the size of the whole.
A range is asked for on the condition that the server's ETag has not changed (If-Range). A server that answers with the
whole file is asked once more without that condition, for the hub still vouches for the hash; only one that cannot
send ranges at all sends everything again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from localllm.errors import TransferError
from localllm.hub.events import Retrying
from localllm.hub.http import Answer, Hub, Transient
from localllm.hub.listing import RemoteFile, Repository
from localllm.hub.partial import Partial
from localllm.hub.reference import bare, kind_of
from localllm.hub.watching import Stall, interruptible, pieces

if TYPE_CHECKING:
    from httpx2 import Response

BLOCK = 1 << 20
_MOMENT = 0.2
"""Seconds after which a block is handed on even if it is not full."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def address(hub: Hub, repository: Repository, file: RemoteFile) -> str:
    """Where the hub gives out a file, at the commit that was listed: what happens to the branch later is no matter."""
    from huggingface_hub import hf_hub_url

    repo = repository.repo
    return hf_hub_url(
        bare(repo), file.path, repo_type=kind_of(repo), revision=repository.commit, endpoint=hub.here.endpoint
    )


def transfer(hub: Hub, repository: Repository, file: RemoteFile, partial: Partial) -> Iterator[int | Retrying]:
    """Fetch what is missing; yields the bytes that are there. Raises HubError, StorageError and CancelledError."""
    failed, conditions = 0, ["if-range", "range", "whole"]
    while partial.position < file.size:
        before = partial.position
        try:
            yield from _stretch(hub, repository, file, partial, conditions)
        except Transient as failure:
            if partial.position >= file.size:
                return  # all is there, whatever the connection says after it
            hub.check_cancelled()  # which breaks the connection off
            failed = 1 if partial.position - before >= hub.limits.stalled_bytes else failed + 1
            pause = hub.pause(failure, failed)
            yield Retrying(file.path, failure.reason, pause)
            hub.wait(pause)


def _stretch(
    hub: Hub, repository: Repository, file: RemoteFile, partial: Partial, conditions: list[str]
) -> Iterator[int]:
    """One request, from where the file ends to its end. Raises Transient when less came."""
    start = partial.position
    headers = {"Range": f"bytes={start}-"}
    if start and conditions[0] == "if-range" and partial.etag:
        headers["If-Range"] = partial.etag
    with hub.get(address(hub, repository, file), repository.repo, headers) as answer:
        check_unchanged(answer, file)
        begins = _begins(answer.response, file, start)
        if begins != start:
            if conditions[0] != "whole":
                conditions.pop(0)
                return  # ask once more, with less of a condition
            partial.begin_again()
        etag = answer.response.headers.get("ETag", "")
        partial.expect(etag if etag.startswith('"') else "")  # a weak one says nothing about bytes
        with interruptible(answer, hub.cancel):
            for block in _blocks(pieces(answer.response, hub.here.timeout), Stall(hub.limits)):
                if partial.position + len(block) > file.size:
                    raise Transient("more comes than the file has")
                partial.write(block)
                yield partial.position
    hub.check_cancelled()
    if partial.position < file.size:
        raise Transient("it ends before the file does")


def check_unchanged(answer: Answer, file: RemoteFile) -> None:
    """The hub says with every answer which content it means. Raises TransferError when that is another one now."""
    tag = answer.linked.get("X-Linked-Etag") or ("" if file.is_lfs else answer.linked.get("ETag", ""))
    said = tag.removeprefix("W/").strip('"')
    size = answer.linked.get("X-Linked-Size", "")
    if (said and said != file.digest) or (size.isdigit() and int(size) != file.size):
        raise TransferError(f"{file.path} has changed on the hub since it was listed.", "Run it again.")


def _begins(response: Response, file: RemoteFile, start: int) -> int:
    """The byte with which the body begins, `start` or 0. Raises Transient for a body that cannot be placed."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Transient("it is sent compressed, which was not asked for")
    if response.status_code == 206:
        found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if found is None or tuple(map(int, found.groups())) != (start, file.size - 1, file.size):
            raise Transient("another range comes than was asked for")
        return start
    if response.status_code != 200:
        raise Transient(f"it answers with {response.status_code}")
    length = response.headers.get("Content-Length", "")
    if length and length != str(file.size):
        raise Transient("a file of another length comes")
    return 0


def _blocks(body: Iterator[bytes], stall: Stall) -> Iterator[bytes]:
    """The body in blocks large enough to hash, soon enough to be seen; what came before a failure is given first."""
    pieces: list[bytes] = []
    size, last = 0, time.monotonic()
    try:
        for piece in body:
            pieces.append(piece)
            size += len(piece)
            now = time.monotonic()
            if size >= BLOCK or now - last >= _MOMENT:
                block = b"".join(pieces)
                pieces, size, last = [], 0, now
                yield block
                stall.add(len(block))
    except Exception:
        if pieces:
            yield b"".join(pieces)
        raise
    if pieces:
        yield b"".join(pieces)
