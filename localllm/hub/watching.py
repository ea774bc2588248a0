"""What looks on while a body is read: the person who may stop it, and how much comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from localllm.hub.http import Answer, Limits, Transient


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
