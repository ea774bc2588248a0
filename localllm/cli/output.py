"""stdout is data, stderr is narration; text from models and files is cleaned before a terminal sees it."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from localllm.sanitize import sanitize_line


def say(text: str) -> None:
    """One line of narration on standard error."""
    print(sanitize_line(text), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON object on one line of standard output; escapes keep control characters out of a terminal."""
    print(json.dumps(value, default=str), flush=True)


class Events:
    """JSON lines of a long command, or nothing when they were not asked for."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled

    def __call__(self, event: str, **fields: Any) -> None:
        if self.enabled:
            print_json({"event": event, **fields})


def peak_rss_mb() -> float:
    """The largest resident memory so far, in 10^6 bytes, of this process or of a child that has ended."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB here
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(peak * unit / 1e6, 1)


@contextmanager
def cancellable() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C (or SIGTERM) sets, so that work stops cleanly; the second Ctrl-C interrupts."""
    event = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: 1:05, 2:00:09."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def human_size(size: float) -> str:
    """Bytes as a person reads them, in powers of ten."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
