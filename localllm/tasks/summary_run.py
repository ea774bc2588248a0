"""The loop between documents and model: slots kept full across documents, rows given out in the documents' order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from localllm.data.documents import Document, Unreadable
from localllm.engine.base import Failed, Finished, StepEvent, TextDelta
from localllm.errors import CancelledError, EngineCrashedError, EngineError, LocalLLMError
from localllm.tasks.results import Results
from localllm.tasks.summary_document import OpenDocument
from localllm.tasks.summary_journal import Journal, step_key
from localllm.tasks.summary_plan import Answer, Planner, Step
from localllm.tasks.summary_rows import new_row
from localllm.tasks.summary_totals import Totals
from localllm.tasks.summary_writer import Writer

AHEAD = 4
"""Documents that may be open, for each slot: finished ones wait there for those before them."""
AHEAD_CHARACTERS = 1 << 25
"""Text of open documents from which on no other is opened."""
FOUND_AT_ONCE = 32
"""Answers that are taken from the journal before anything else is looked at."""
MOST_DEATHS = 3
"""Documents in a row that the engine dies of, each tried twice, before the run ends."""
PROGRESS_SECONDS = 1.0
_HINT = "Everything done so far is kept: run the same command again to go on."


@dataclass(frozen=True)
class PartDone:
    """A step of a document is done: number `done` of `total` (None: not known yet) in combining round `level`."""

    source: str
    level: int
    done: int
    total: int | None
    start: int | None
    """First character of the part that was read, and the one after the last; None where summaries were combined."""
    end: int | None
    text: str
    """What the model wrote."""


@dataclass(frozen=True)
class Progressed:
    """How far the run is, every PROGRESS_SECONDS."""

    documents: int
    of: int
    """Files, or documents where tables turned out to hold more."""
    parts: int
    failed: int
    tokens_per_second: float
    left: float | None
    """Seconds; None while nothing is known."""


@dataclass(frozen=True)
class DocumentDone:
    """A document's row, as written to the output; `row["error"]` is None or what went wrong."""

    row: dict[str, Any]


@dataclass(eq=False)
class _Flight:
    """A step that is being answered."""

    document: OpenDocument
    number: int
    step: Step
    key: str
    alone: bool = False
    """It failed in company, and this is its second time."""
    text: list[str] = field(default_factory=list)


class Pipeline:
    """Runs documents through their plans. One run each."""

    def __init__(
        self,
        writer: Writer,
        planner: Planner,
        documents: Iterator[Document | Unreadable],
        origin: dict[str, Any],
        *,
        journal: Journal,
        results: Results | None,
        totals: Totals,
        timeout: float | None,
        cancel: threading.Event,
    ) -> None:
        self._writer, self._planner, self._documents, self._origin = writer, planner, documents, origin
        self._journal, self._results, self._totals = journal, results, totals
        self._timeout, self._cancel = timeout, cancel
        self._open: deque[OpenDocument] = deque()  # in their order
        self._more = True
        self._running: dict[int, _Flight] = {}
        self._again: deque[_Flight] = deque()
        self._deaths = 0
        self._told = totals.seconds
        self.failed_keys: list[str] = []
        """Answers for documents that came to nothing, for when they are tried again."""

    def run(self) -> Iterator[PartDone | DocumentDone | Progressed]:
        """To the end. Raises CancelledError, StorageError, and EngineError when there is no model any more."""
        try:
            while self._more or self._open:
                if self._cancel.is_set():
                    raise stopped(self._totals, self._results)
                self._fill()
                yield from self._written()
                for event in self._writer.step() if self._running else ():
                    yield from self._take(event)
                yield from self._progress()
        finally:
            for request_id in self._running:
                self._writer.cancel(request_id)
            if self._running:
                self._writer.step()

    def _progress(self) -> Iterator[Progressed]:
        t = self._totals
        if t.seconds - self._told >= PROGRESS_SECONDS:
            t.open_bytes = sum(document.share * document.size for document in self._open)
        if (now := progress(t, self._told)) is not None:
            self._told = t.seconds
            yield now

    # To the model

    def _fill(self) -> None:
        """Ask for as much as there are slots for, and some to follow at once."""
        if self._again:  # what failed in company is tried alone, so that it takes nothing with it
            if not self._running:
                self._submit(self._again.popleft())
            return
        while len(self._running) < 2 * self._writer.n_slots and not self._again:
            if (flight := self._next()) is None:
                return
            self._submit(flight)

    def _next(self) -> _Flight | None:
        """The next step that is not answered yet: of the first document that has one. None also after many answers
        that were there, so that Ctrl-C is seen and progress told while a long text is gone through."""
        found = 0
        while not self._cancel.is_set():
            for document in self._open:
                while (taken := document.take()) is not None:
                    number, step = taken
                    key = step_key(self._origin["settings"], step)
                    document.keys.append(key)
                    if (answer := self._journal.get(key)) is None:
                        return _Flight(document, number, step, key)
                    document.give(number, step, answer)
                    self._totals.reused += 1
                    if (found := found + 1) == FOUND_AT_ONCE:
                        return None
            if not self._admit():
                break
        return None

    def _admit(self) -> bool:
        """Open another document, if there is one and room for it."""
        waiting = sum(document.row["characters"] for document in self._open)
        if len(self._open) >= AHEAD * self._writer.n_slots or waiting > AHEAD_CHARACTERS:
            return False
        item = next(self._documents, None)
        if item is None:
            self._more = False
            return False
        plan = self._planner.plan(item.text) if isinstance(item, Document) else None
        self._open.append(OpenDocument(new_row(item, self._origin), plan, self._totals.size_of(item)))
        return True

    def _submit(self, flight: _Flight) -> None:
        document = flight.document
        if document.finished:
            return
        now = time.monotonic()
        if self._timeout is not None and document.deadline is None:
            document.deadline = now + self._timeout
        left = None if document.deadline is None else max(0.0, document.deadline - now)
        try:
            request_id = self._writer.submit(flight.step.prompt, flight.step.sampling, left)
        except EngineCrashedError as error:
            self._failed(flight, error)
        except LocalLLMError as error:
            self._give_up(document, error)
        else:
            self._running[request_id] = flight

    # From the model

    def _take(self, event: StepEvent) -> Iterator[PartDone]:
        flight = self._running.get(event.request_id)
        if flight is None:
            return
        if isinstance(event, TextDelta):
            flight.text.append(event.text)
        elif isinstance(event, Failed):
            del self._running[event.request_id]
            self._failed(flight, EngineError(event.message, event.hint))
        elif isinstance(event, Finished):
            del self._running[event.request_id]
            if event.reason == "deadline":
                self._give_up(flight.document, EngineError(f"It took longer than {self._timeout:g} s."))
            elif event.reason != "cancelled" and not flight.document.finished:
                yield self._answered(flight, event)

    def _answered(self, flight: _Flight, event: Finished) -> PartDone:
        usage, step, document = event.usage, flight.step, flight.document
        answer = Answer(
            "".join(flight.text), event.reason, usage.prompt_tokens, usage.output_tokens,
            round(usage.prefill_seconds, 4), round(usage.decode_seconds, 4),
        )  # fmt: skip
        self._journal.put(flight.key, answer)
        self._deaths = 0
        self._totals.add(answer)
        document.give(flight.number, step, answer)
        start, end = (step.chunk.start, step.chunk.end) if step.chunk else (None, None)
        return PartDone(document.source, step.level, document.done, document.total, start, end, answer.text)

    def _failed(self, flight: _Flight, error: LocalLLMError) -> None:
        """Once is no proof: the engine may have died of another request."""
        if flight.document.finished:
            return
        if self._writer.entangled and not flight.alone:
            flight.alone, flight.text = True, []
            self._again.append(flight)
            return
        self._give_up(flight.document, error)
        self._deaths += isinstance(error, EngineCrashedError)
        if self._deaths >= MOST_DEATHS:
            raise error

    def _give_up(self, document: OpenDocument, error: LocalLLMError) -> None:
        document.fail(error)
        for request_id, flight in self._running.items():
            if flight.document is document:
                self._writer.cancel(request_id)

    def _written(self) -> Iterator[DocumentDone]:
        """The rows of finished documents that no other comes before."""
        while self._open and self._open[0].finished:
            document = self._open[0]
            if self._results is not None:
                self._results.append(document.row)
            self._open.popleft()
            failed = bool(document.row["error"])
            if failed:
                self.failed_keys += document.keys
            else:
                self._journal.forget(document.keys)
            self._totals.wrote(document.size, failed=failed)
            yield DocumentDone(document.row)


def progress(t: Totals, told: float) -> Progressed | None:
    """How far a run is, if it is time to tell it again after that second."""
    if t.seconds - told < PROGRESS_SECONDS:
        return None
    of, failed = max(t.files, t.documents), t.failed + t.failed_before
    return Progressed(t.documents, of, t.parts, failed, round(t.tokens_per_second, 1), t.left)


def stopped(t: Totals, results: Results | None) -> CancelledError:
    done = t.skipped + t.written
    hint = _HINT if results else "Name a file with --out to be able to go on."
    return CancelledError(f"Stopped: {done} of {max(done, t.files)} documents are done.", hint)
