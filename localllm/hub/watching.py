"""What looks on while a body is read: the person who may stop it, and how much comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from localllm.hub.http import Answer, Limits, Transient

if TYPE_CHECKING:
    from httpx2 import Response

_PIECE = 1 << 20


@contextmanager
def interruptible(answer: Answer, cancel: threading.Event) -> Iterator[None]:
    """While a body is read: a cancel ends the reading at once, even when nothing comes."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            if cancel.is_set():
                with suppress(OSError, AttributeError, KeyError):
                    stream = answer.response.extensions["network_stream"]
                    stream.get_extra_info("socket").shutdown(2)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


class Stall:
    """Notices a transfer that hardly moves."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._since, self._bytes = time.monotonic(), 0

    def add(self, count: int) -> None:
        """Raises Transient when too little came for too long."""
        now = time.monotonic()
        self._bytes += count
        if now - self._since < self._limits.stalled_seconds:
            return
        if self._bytes < self._limits.stalled_bytes:
            raise Transient("next to nothing comes")
        self._since, self._bytes = now, 0


def pieces(response: Response, timeout: float) -> Iterator[bytes]:
    """The body of a response. Raises Transient and httpx's errors.

    All but its beginning is read off the connection itself where the length is known: httpx parses every 64 KiB, which
    at a gigabyte a second takes as much of a processor as hashing does. Afterwards the connection is good for nothing.
    """
    body = response.iter_raw()
    beginning = next(body, b"")  # with all that was read along with the headers
    yield beginning
    length = response.headers.get("Content-Length", "")
    stream = response.extensions.get("network_stream")
    if response.http_version != "HTTP/1.1" or not length.isdigit() or stream is None:
        yield from body
        return
    import httpcore2

    left = int(length) - len(beginning)
    while left > 0:
        try:
            piece = stream.read(min(left, _PIECE), timeout)
        except httpcore2.TimeoutException:
            raise Transient("nothing comes any more") from None
        except (httpcore2.NetworkError, OSError) as error:
            raise Transient("the connection broke off") from error
        if not piece:
            raise Transient("the connection broke off")
        left -= len(piece)
        yield piece
