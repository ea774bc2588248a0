"""The beginning of a file on the hub by ranged reads, as much of it as a reader turns out to need."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from localllm.errors import HubError
from localllm.hub.http import Hub, Transient
from localllm.hub.listing import RemoteFile, Repository, persistently
from localllm.hub.transfer import address, check_unchanged
from localllm.hub.watching import interruptible

FIRST, MOST = 1 << 18, 64 << 20
"""Bytes that are asked for first, and at most: the largest vocabularies known take some 20 MB."""
T = TypeVar("T")


def read_beginning(
    hub: Hub, repository: Repository, file: RemoteFile, attempt: Callable[[bytes], T | int], first: int = FIRST
) -> T:
    """What `attempt` makes of the beginning; while it gives a number instead, it needs at least so many bytes.

    What it raises passes through. Raises HubError where the hub sends no ranges or the beginning does not end.
    """
    beginning, wanted = b"", min(first, file.size)
    while True:
        beginning += persistently(hub, partial(_range, hub, repository, file, len(beginning), wanted))
        found = attempt(beginning)
        if not isinstance(found, int):
            return found
        if wanted >= min(file.size, MOST):
            raise HubError(f"The header of {file.path} does not end.", "Choose another file.")
        wanted = min(file.size, MOST, max(found, 2 * wanted))


def _range(hub: Hub, repository: Repository, file: RemoteFile, start: int, end: int) -> bytes:
    """Bytes `start` to `end` (exclusive). Raises Transient and HubError."""
    headers = {"Range": f"bytes={start}-{end - 1}"}
    with hub.get(address(hub, repository, file), repository.repo, headers) as answer:
        check_unchanged(answer, file)
        response = answer.response
        whole = response.status_code == 200 and start == 0
        if not whole and response.headers.get("Content-Range", "") != f"bytes {start}-{end - 1}/{file.size}":
            raise Transient("another range comes than was asked for")
        body = bytearray()
        with interruptible(answer, hub.cancel):
            for piece in response.iter_raw():
                body += piece
                if len(body) >= end - start:
                    break  # one that sends everything is not listened to any longer
    if len(body) < end - start:
        raise Transient("it ends before the range does")
    return bytes(body[: end - start])
