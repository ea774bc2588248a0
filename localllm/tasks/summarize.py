"""Summaries of whole documents, in batch: several in flight, each a row when it and those before it are done.

Rows come in the order of the documents. The model's answers are kept beside the output until their document's row is
written, so a process that is killed costs the answers on their way; a second run asks for nothing that is there.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from localllm.data.documents import Document, Found, Skipped, Unreadable, find, read
from localllm.engine import wire
from localllm.errors import StorageError, UsageError
from localllm.tasks.results import Results
from localllm.tasks.summary_journal import Journal
from localllm.tasks.summary_limits import limits_for
from localllm.tasks.summary_plan import Planner, Strategy
from localllm.tasks.summary_prompts import Prompts, Wish
from localllm.tasks.summary_ray import Machines, RayPipeline
from localllm.tasks.summary_rows import Format, entry_key, entry_of, format_of, rows_path, write_as
from localllm.tasks.summary_run import DocumentDone, PartDone, Pipeline, Progressed
from localllm.tasks.summary_totals import Totals
from localllm.tasks.summary_writer import Writer
from localllm.types import Sampling

VERSION = 2
"""Of prompts and plans: another one makes other summaries."""


@dataclass(frozen=True)
class SummarizeRequest:
    """What to summarize and how. The hashes name the exact model and adapter, and decide what is done already; of a
    model that a server has only its name is known."""

    paths: tuple[Path, ...]
    out: Path | None
    model: str
    model_sha256: str | None
    endpoint: str | None = None
    """Address of the server that has the model."""
    adapter: str | None = None
    adapter_sha256: str | None = None
    adapter_scale: float = 1.0
    sampling: Sampling = field(default_factory=Sampling)
    """Without `max_tokens`, what the length and style ask for. A grammar is for the summary alone."""
    wish: Wish = field(default_factory=Wish)
    strategy: Strategy = "auto"
    part_tokens: int | None = None
    """Tokens of text in a part; None takes what the context allows."""
    overlap: int = 0
    """Tokens of the part before that a part begins with."""
    field: str | None = None
    """The field of a table's rows that holds the text; None looks for it."""
    format: Format | None = None
    """Of the output; None goes by its name."""
    timeout: float | None = None
    """Seconds that one document may take."""
    retry_failed: bool = False
    redo: bool = False
    """Whether to replace summaries that were made with other settings."""

    def origin(self, settings: str) -> dict[str, Any]:
        """What a row says of how it was made."""
        return {
            "model": self.model,
            **({"endpoint": self.endpoint} if self.endpoint else {}),
            "model_sha256": self.model_sha256,
            "adapter": self.adapter,
            "adapter_sha256": self.adapter_sha256,
            "settings": settings,
        }


@dataclass(frozen=True)
class Started:
    """What there is to do."""

    documents: int
    """Files; a table among them may hold many documents."""
    kept: int
    """Rows that are in the output already."""


@dataclass(frozen=True)
class Done:
    """Totals of this run; `failed` counts all documents without a summary, those of earlier runs included."""

    documents: int
    skipped: int
    failed: int
    failed_before: int
    parts: int
    reused: int
    prompt_tokens: int
    output_tokens: int
    seconds: float


SummarizeEvent = Started | PartDone | Progressed | DocumentDone | Done


def summarize(
    request: SummarizeRequest,
    writer: Writer,
    cancel: threading.Event | None = None,
    machines: Machines | None = None,
) -> Iterator[SummarizeEvent]:
    """Summarize documents, as many side by side as there are slots for. With `machines` they are sent there, and the
    writer says only how much fits a prompt.

    What goes wrong with one document is a row with `error`; the others go on. Raises UsageError, GrammarError and
    StorageError before any is read; later StorageError when the disk is full, EngineError when the engine dies again
    and again or the server is gone, and CancelledError when stopped. What is done by then is kept.
    """
    cancel = cancel or threading.Event()
    found = [item for item in find(request.paths) if not isinstance(item, Skipped)]
    if not found:
        raise UsageError("There is nothing to summarize: no readable documents were found.", "Name files or folders.")
    planner, settings = plans_for(request, writer)
    with ExitStack() as stack:
        results = _open_results(request, settings, stack)
        journal = Journal(results.path.with_name(f"{results.path.name}.journal") if results else None)
        stack.callback(journal.close)
        source = _Source(request, found, results, settings, cancel)
        yield Started(len(found), len(results.found) if results else 0)
        pipeline: Pipeline | RayPipeline
        origin, totals = request.origin(settings), source.totals
        if machines is None:
            pipeline = Pipeline(
                writer, planner, iter(source), origin, journal=journal, results=results, totals=totals,
                timeout=request.timeout, cancel=cancel,
            )  # fmt: skip
        else:
            line = wire.encode(request).decode()
            pipeline = RayPipeline(machines, line, iter(source), origin, results=results, totals=totals, cancel=cancel)
        try:
            yield from pipeline.run()
        except BaseException:
            with suppress(StorageError):  # what ended the run is said, and the rows are there
                _publish(request, results)
            raise
        if results:
            results.drop(source.gone())
            results.arrange(source.order)
        _publish(request, results)
        journal.settle(pipeline.failed_keys)
    yield _done(source.totals)


def plans_for(request: SummarizeRequest, writer: Writer) -> tuple[Planner, str]:
    """What makes the plans, and a digest of all that decides what a summary says but the documents."""
    prompts = Prompts(request.wish)
    sampling = replace(request.sampling, json_schema=request.wish.schema or request.sampling.json_schema)
    limits = limits_for(writer, prompts, sampling, request.part_tokens, request.overlap, request.strategy)
    writer.check(limits.final)
    model = request.model_sha256 or [request.endpoint, request.model]
    files = [model, request.adapter_sha256, request.adapter_scale if request.adapter_sha256 else None]
    facts = [VERSION, *files, request.strategy, request.field, repr(request.wish), repr(limits)]
    settings = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return Planner(prompts, request.strategy, limits, writer.count), settings


def _open_results(request: SummarizeRequest, settings: str, stack: ExitStack) -> Results | None:
    """The rows of earlier runs, held. Raises UsageError for a file that is not ours, or of other settings."""
    if request.out is None:
        return None
    out = request.out.resolve()
    if out.exists() and not out.is_file():
        what = "a folder" if out.is_dir() else "not a regular file"
        raise UsageError(f"{request.out} is {what}.", "Name a file with --out.")
    results = stack.enter_context(Results(rows_path(out, request.format or format_of(out)), entry_of))
    others = [entry.item for entry in results.found.values() if not entry.key.endswith(f":{settings}")]
    if others and not request.redo:
        raise UsageError(
            f"{results.path} holds {len(others)} summaries that were made with other settings.",
            "Name another file with --out, or replace them with --redo.",
        )
    results.drop(others)
    return results


def _publish(request: SummarizeRequest, results: Results | None) -> None:
    """Make the output from the rows, where it is not the rows themselves."""
    if results is None or request.out is None:
        return
    out = request.out.resolve()
    kind = request.format or format_of(out)
    if kind != "jsonl":
        write_as(kind, results.path, out)


def _done(t: Totals) -> Done:
    return Done(
        t.documents, t.skipped, t.failed + t.failed_before, t.failed_before, t.parts, t.reused, t.prompt_tokens,
        t.output_tokens, t.seconds,
    )  # fmt: skip


class _Source:
    """The documents that have no row yet, in order; what is passed over is counted."""

    def __init__(
        self,
        request: SummarizeRequest,
        found: list[Found | Unreadable],
        results: Results | None,
        settings: str,
        cancel: threading.Event,
    ) -> None:
        self._request, self._found, self._settings, self._cancel = request, found, settings, cancel
        self._earlier = results.found if results else {}
        self.totals = Totals()
        self._seen: dict[str, None] = {}
        for item in found:
            self.totals.found(item)

    @property
    def order(self) -> list[str]:
        """Every document that has been met."""
        return list(self._seen)

    def gone(self) -> list[str]:
        """Rows of tables that were there in an earlier run and are no more; only once all has been read."""
        files = {item.source for item in self._found}
        known = (source for source in self._earlier if source not in self._seen)
        return [source for source in known if source in files or source.rpartition(":")[0] in files]

    def __iter__(self) -> Iterator[Document | Unreadable]:
        for found in self._found:
            for item in self._read(found):
                if item.source in self._seen:
                    continue
                self._seen[item.source] = None
                missing = isinstance(item, Unreadable) and self._is_done(item.source, item.sha256)
                if missing or isinstance(item, Skipped):
                    self._skip(item.source, found)
                else:
                    yield item

    def _read(self, found: Found | Unreadable) -> Iterator[Document | Unreadable | Skipped]:
        if isinstance(found, Unreadable):
            yield found
        else:
            yield from read(found, field=self._request.field, done=self._is_done, cancel=self._cancel)

    def _is_done(self, source: str, sha256: str | None) -> bool:
        entry = self._earlier.get(source)
        if entry is None or entry.key != entry_key(sha256, self._settings):
            return False
        return not (entry.failed and self._request.retry_failed)

    def _skip(self, source: str, found: Found | Unreadable) -> None:
        size = self.totals.size_of(found) if source == found.source else 0
        self.totals.skip(size, failed=self._earlier[source].failed)
