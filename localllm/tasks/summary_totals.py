"""How far a run is: documents, answers, tokens, and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from localllm.data.documents import Document, Found, Unreadable
from localllm.tasks.summary_plan import Answer


@dataclass
class Totals:
    """Counts of one run. Work is measured in bytes of files, which are known before any is opened."""

    clock: Callable[[], float] = time.perf_counter
    files: int = 0
    bytes: int = 0
    """Of all files."""
    documents: int = 0
    """Rows of tables count each; those skipped are among them."""
    skipped: int = 0
    written: int = 0
    failed: int = 0
    failed_before: int = 0
    """Skipped ones that have no summary."""
    parts: int = 0
    reused: int = 0
    """Answers that an earlier run had kept."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    done_bytes: float = 0
    open_bytes: float = 0
    """Read of documents that are not finished."""
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def seconds(self) -> float:
        return self.clock() - self.started

    @property
    def tokens_per_second(self) -> float:
        """Prompt and answer together."""
        return (self.prompt_tokens + self.output_tokens) / max(self.seconds, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds to go, if the rest of the bytes takes as long as those before; None while nothing is known."""
        done = self.done_bytes + self.open_bytes
        if done <= 0 or self.parts == 0:
            return None
        return self.seconds * max(0.0, self.bytes - done) / done

    def found(self, item: Found | Unreadable) -> None:
        self.files += 1
        self.bytes += _size(item)

    def size_of(self, item: Document | Found | Unreadable) -> int:
        """The share of the bytes that a document is: its file's, or for a row of a table its own."""
        if isinstance(item, Document) and item.source != str(item.path):
            return len(item.text)
        return _size(item)

    def skip(self, size: int, *, failed: bool) -> None:
        """Somebody did it before: it is no part of what is to do."""
        self.documents += 1
        self.skipped += 1
        self.failed_before += failed
        self.bytes = max(0, self.bytes - size)

    def add(self, answer: Answer) -> None:
        self.parts += 1
        self.prompt_tokens += answer.prompt_tokens
        self.output_tokens += answer.output_tokens

    def wrote(self, size: int, *, failed: bool) -> None:
        self.documents += 1
        self.written += 1
        self.failed += failed
        self.done_bytes += size


def _size(item: Document | Found | Unreadable) -> int:
    try:
        return item.path.stat().st_size if item.path else 0
    except (OSError, ValueError):
        return 0
