"""Summaries by the machines of a Ray cluster: whole documents go out, rows come back and are written here.

A machine that is lost costs the documents it was at, and those of the others that had no row yet; they are done again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from localllm.data.documents import Document, Unreadable
from localllm.engine import wire
from localllm.errors import EngineError, UsageError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.opening import open_model
from localllm.tasks.ray_nodes import Cluster, Work, piece_for
from localllm.tasks.results import Results
from localllm.tasks.summary_journal import Journal
from localllm.tasks.summary_plan import Planner
from localllm.tasks.summary_rows import new_row
from localllm.tasks.summary_run import DocumentDone, Pipeline, Progressed, progress, stopped
from localllm.tasks.summary_totals import Totals
from localllm.tasks.summary_writer import EngineWriter, Writer

_CHARACTERS = 1 << 26
"""Of the texts that are sent out together; those of further documents wait until they are done."""


@dataclass(frozen=True)
class Machines:
    """A cluster, and what `open_model` is to be told on each of its machines."""

    cluster: Cluster
    options: dict[str, Any]
    """Its arguments, `model` and `adapter` among them."""


class RayPipeline:
    """Like `Pipeline`, with other machines at work. Its rows are written as they come."""

    def __init__(
        self,
        machines: Machines,
        request: str,
        documents: Iterator[Document | Unreadable],
        origin: dict[str, Any],
        *,
        results: Results | None,
        totals: Totals,
        cancel: threading.Event,
    ) -> None:
        """`request` is the SummarizeRequest as a line of engine/wire.py."""
        arguments = {"options": machines.options, "request": request, "settings": origin["settings"]}
        self._cluster, self._work = machines.cluster, Work("localllm.tasks.summary_ray:start", arguments)
        self._documents, self._origin = documents, origin
        self._results, self._totals, self._cancel = results, totals, cancel
        self._told = totals.seconds
        self.failed_keys: list[str] = []

    def run(self) -> Iterator[DocumentDone | Progressed]:
        """To the end. Raises CancelledError, StorageError, and what `Cluster.spread` raises."""
        while group := self._group():
            if self._cancel.is_set():
                break
            yield from self._spread(group)
        if self._cancel.is_set():
            raise stopped(self._totals, self._results)

    def _group(self) -> list[Document | Unreadable]:
        """The next documents that are sent out together."""
        group, characters = [], 0
        for item in self._documents:
            group.append(item)
            characters += len(item.text) if isinstance(item, Document) else 0
            if characters > _CHARACTERS or self._cancel.is_set():
                break
        return group

    def _spread(self, group: list[Document | Unreadable]) -> Iterator[DocumentDone | Progressed]:
        """Rows of a group; they are written as they come, and told in the documents' order."""
        rows: dict[int, dict[str, Any]] = {}
        sent: list[int] = []
        items: list[str] = []
        for number, document in enumerate(group):
            packed = _packed(document)
            if isinstance(packed, Unreadable):
                rows[number] = self._write(document, new_row(packed, self._origin), 0)
            else:
                sent.append(number)
                items.append(packed)
        told = 0
        spread = self._cluster.spread(items, self._work, piece=piece_for(len(items)), cancel=self._cancel)
        for found in chain((None,), spread):
            if found is not None:
                number, (row, parts) = sent[found[0]], json.loads(found[1])
                rows[number] = self._write(group[number], row, parts)
            while told in rows:
                yield DocumentDone(rows.pop(told))
                told += 1
            yield from self._progress()

    def _write(self, document: Document | Unreadable, row: dict[str, Any], parts: int) -> dict[str, Any]:
        if self._results is not None:
            self._results.append(row)
        t = self._totals
        t.parts, t.prompt_tokens = t.parts + parts, t.prompt_tokens + row["prompt_tokens"]
        t.output_tokens += row["output_tokens"]
        t.wrote(t.size_of(document), failed=bool(row["error"]))
        return row

    def _progress(self) -> Iterator[Progressed]:
        if (now := progress(self._totals, self._told)) is not None:
            self._told = self._totals.seconds
            yield now


def _packed(document: Document | Unreadable) -> str | Unreadable:
    if isinstance(document, Unreadable):
        return document
    try:
        return wire.encode(document).decode()
    except UsageError:
        message = "is too long to be sent to another machine."
        return Unreadable(document.source, document.path, document.sha256, message, "Summarize it without --ray.")


def start(options: dict[str, Any], request: str, settings: str) -> Callable[[Sequence[str]], list[str]]:
    """Called on each machine. Raises EngineError where the same names or settings make other summaries there."""
    from localllm.tasks.summarize import SummarizeRequest, plans_for

    wanted: SummarizeRequest = wire.decode(request.encode(), SummarizeRequest)
    registry = Registry(Home.locate())
    opened = open_model(registry, worker=True, **options)
    found = (registry.sha256(opened.model.path), registry.sha256(opened.adapter.path) if opened.adapter else None)
    writer = EngineWriter(opened.engine)
    planner, ours = plans_for(wanted, writer)
    if found != (wanted.model_sha256, wanted.adapter_sha256) or ours != settings:
        raise EngineError("it has another model or adapter of that name.", "Copy the same files to all machines.")
    origin = wanted.origin(settings)

    def work(items: Sequence[str]) -> list[str]:
        return _summarize(items, writer, planner, origin, wanted.timeout)

    return work


def _summarize(
    items: Sequence[str], writer: Writer, planner: Planner, origin: dict[str, Any], timeout: float | None
) -> list[str]:
    """(row, answers it took) of each document, as JSON."""
    done: list[tuple[dict[str, Any], int]] = []
    documents = [wire.decode(item.encode(), Document) for item in items]
    totals = Totals()
    pipeline = Pipeline(
        writer, planner, iter(documents), origin, journal=Journal(None), results=None, totals=totals, timeout=timeout,
        cancel=threading.Event(),
    )  # fmt: skip
    asked = 0
    for event in pipeline.run():
        if isinstance(event, DocumentDone):
            done.append((event.row, totals.parts - asked))
            asked = totals.parts
    return [json.dumps(pair) for pair in done]
