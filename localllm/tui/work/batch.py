"""A batch of summaries as the app holds it: each document's state, and how far all of them are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localllm.tui.work.job import Job, Work

if TYPE_CHECKING:
    from localllm.tasks.summarize import Done, Started
    from localllm.tasks.summary_here import BatchRequest
    from localllm.tasks.summary_run import DocumentDone, PartDone, Progressed


@dataclass
class DocumentState:
    """One document. Its name is as the source says it: not clean."""

    source: str
    parts: int = 0
    of: int | None = None
    combining: bool = False
    row: dict[str, Any] | None = None
    """What was written to the output."""


@dataclass
class Totals:
    """How far the batch is."""

    documents: int = 0
    of: int = 0
    parts: int = 0
    failed: int = 0
    tokens_per_second: float = 0.0
    left: float | None = None


class BatchJob(Job):
    """Folds the events of `tasks.summarize`."""

    def __init__(self, request: BatchRequest, sources: list[str], work: Work) -> None:
        """`sources` are the documents that are known beforehand."""
        super().__init__(request.out.name, work)
        self.request = request
        self.documents: dict[str, DocumentState] = {source: DocumentState(source) for source in sources}
        self.totals = Totals(of=len(sources))
        self.kept = 0
        """Rows that were in the output at the start."""
        self.complete = False
        """Whether the rows of earlier runs are among the documents."""
        self.done: Done | None = None

    def add_kept(self, rows: list[dict[str, Any]]) -> None:
        """The rows that the output has."""
        self.complete = True
        for row in rows:
            document = self._document(str(row["source"]))
            document.row = document.row or row

    def finished_with(self, rows: list[dict[str, Any]]) -> None:
        """A batch of another time, to look at."""
        self.add_kept(rows)
        failed = sum(bool(row["error"]) for row in rows)
        parts = sum(len(row["parts"]) for row in rows)
        self.totals, self.status = Totals(len(rows), len(rows), parts, failed), "done"

    def take(self, event: Any) -> None:
        getattr(self, f"_{type(event).__name__.lower()}")(event)

    def _started(self, event: Started) -> None:
        self.totals.of, self.kept = event.documents, event.kept

    def _partdone(self, event: PartDone) -> None:
        document = self._document(event.source)
        document.parts, document.of, document.combining = event.done, event.total, event.level > 0
        self.totals.parts += 1

    def _progressed(self, event: Progressed) -> None:
        t = self.totals
        t.of, t.tokens_per_second, t.left = event.of, event.tokens_per_second, event.left
        t.documents, t.failed = event.documents, event.failed

    def _documentdone(self, event: DocumentDone) -> None:
        row = event.row
        self._document(str(row["source"])).row = row
        self.totals.documents += 1
        self.totals.failed += bool(row["error"])
        for warning in row["warnings"]:
            self.note(f"{row['source']}: {warning}.")

    def _done(self, event: Done) -> None:
        t = self.totals
        t.documents, t.of, t.parts, t.failed, t.left = event.documents, event.documents, event.parts, event.failed, None
        tokens = event.prompt_tokens + event.output_tokens
        t.tokens_per_second = tokens / event.seconds if event.seconds else 0.0
        self.done = event

    def _document(self, source: str) -> DocumentState:
        if source not in self.documents:  # a row of a table
            self.documents = {**self.documents, source: DocumentState(source)}
        return self.documents[source]
