"""Requests in OpenAI's batch format, answered side by side; each row is written when its answer is finished.

A second run skips every request that has a row for the same request and the same model, adapter and settings.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.errors import CancelledError, UsageError
from localllm.tasks.answerer import Answerer, Question
from localllm.tasks.batch_requests import Line, complaint_row, entry_of, read_lines, row
from localllm.tasks.results import Entry, Results


@dataclass(frozen=True)
class BatchRequest:
    """Which requests to answer, and where the answers go."""

    path: Path
    out: Path
    retry_failed: bool = False


@dataclass(frozen=True)
class Started:
    """What there is to do: `requests` in all, `skipped` of them done by an earlier run."""

    requests: int
    skipped: int
    answerer: str


@dataclass(frozen=True)
class RequestDone:
    """A request's row, as written to the output; `row["error"]` is None or what went wrong."""

    row: dict[str, Any]
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Done:
    """Totals of this run; `failed` counts all requests without an answer, those of earlier runs included."""

    requests: int
    skipped: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    seconds: float


BatchEvent = Started | RequestDone | Done


def batch(request: BatchRequest, answerer: Answerer, cancel: threading.Event | None = None) -> Iterator[BatchEvent]:
    """Answer what has no answer yet. Raises UsageError, DataError, StorageError, what the answerer raises, and
    CancelledError when stopped; the rows that were written stay.

    What goes wrong with one request is a row with `error`; the others go on.
    """
    if request.out.exists() and request.path.exists() and request.out.samefile(request.path):
        raise UsageError("The results cannot be written over the requests.", "Name another file with --out.")
    begin = time.perf_counter()
    prompt_tokens = output_tokens = 0
    with Results(request.out, entry_of) as results:
        run = _Run(request, answerer, results)
        failed = run.failed
        yield Started(len(run.wanted), run.skipped, answerer.name)
        for event in run.events(cancel):
            failed += event.row["error"] is not None
            prompt_tokens, output_tokens = prompt_tokens + event.prompt_tokens, output_tokens + event.output_tokens
            yield event
    seconds = time.perf_counter() - begin
    yield Done(len(run.wanted), run.skipped, failed, prompt_tokens, output_tokens, seconds)


class _Run:
    """What there is to do, and doing it."""

    def __init__(self, request: BatchRequest, answerer: Answerer, results: Results) -> None:
        """Looks through the requests and takes rows out that are to be written anew."""
        self._request, self._answerer, self._results = request, answerer, results
        self.wanted = {line.item: line.id for line in self._lines()}
        if not self.wanted:
            raise UsageError(f"{request.path} holds no requests.", "Write one a line, as OpenAI's batch files do.")
        results.drop([item for item, entry in results.found.items() if self._is_stale(item, entry)])
        earlier = [entry for item, entry in results.found.items() if item in self.wanted]
        self.skipped, self.failed = len(earlier), sum(entry.failed for entry in earlier)

    def events(self, cancel: threading.Event | None) -> Iterator[RequestDone]:
        written = self.skipped
        for line in self._todo():
            if line.question is None:
                yield self._write(complaint_row(line), (0, 0))
                written += 1
        under_way: dict[str, Line] = {}
        for question, reply in self._answerer.answer(self._questions(under_way), cancel):
            yield self._write(row(under_way.pop(question.id), reply), reply.tokens)
            written += 1
        if written < len(self.wanted) and cancel is not None and cancel.is_set():
            kept = f"{written} of {len(self.wanted)} requests are finished and kept"
            raise CancelledError("Stopped.", f"{kept}; run the same command again to go on.")

    def _write(self, row: dict[str, Any], tokens: tuple[int, int]) -> RequestDone:
        self._results.append(row)
        return RequestDone(row, *tokens)

    def _questions(self, under_way: dict[str, Line]) -> Iterator[Question]:
        for line in self._todo():
            if line.question is not None:
                under_way[line.question.id] = line
                yield line.question

    def _todo(self) -> Iterator[Line]:
        return (line for line in self._lines() if line.item not in self._results.found)

    def _lines(self) -> Iterator[Line]:
        return read_lines(self._request.path, self._answerer.settings)

    def _is_stale(self, item: str, entry: Entry) -> bool:
        """Rows of requests that this file does not have stay, but for complaints about its lines."""
        key = self.wanted.get(item)
        if key is None:
            return item.startswith("line ")
        return key != entry.key or (entry.failed and self._request.retry_failed)
