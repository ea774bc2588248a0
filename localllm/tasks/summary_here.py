"""Summaries with a model of this machine, in a child process of its own; what was left is remembered.

The output decides what is done already, so asking for the same again goes on where it was left.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from localllm import jsonl
from localllm.data.documents import Found, Skipped, Unreadable, find, read
from localllm.errors import DataError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.left import Left
from localllm.tasks.opening import open_model
from localllm.tasks.summarize import Done, SummarizeEvent, SummarizeRequest, summarize
from localllm.tasks.summary_prompts import Wish
from localllm.tasks.summary_rows import entry_of, format_of, rows_path
from localllm.tasks.summary_writer import EngineWriter

MOST_LISTED = 1000


@dataclass(frozen=True)
class BatchRequest:
    """What to summarize, with which model, and how."""

    paths: tuple[Path, ...]
    out: Path
    model: str
    adapter: str | None = None
    wish: Wish = field(default_factory=Wish)
    retry_failed: bool = False
    redo: bool = False


_LEFT: Left[BatchRequest] = Left("batch.json", BatchRequest)


@dataclass(frozen=True)
class Listing:
    """What would be read."""

    files: tuple[tuple[str, int | None], ...]
    """Names and bytes, MOST_LISTED at most; None for a file that is not there."""
    count: int
    bytes: int
    hidden: int
    other: int
    """Files in folders whose kind is no document's."""


def listing(paths: tuple[Path, ...]) -> Listing:
    """Look at what the paths name, without opening it."""
    files: list[tuple[str, int | None]] = []
    count = total = hidden = other = 0
    for item in find(paths):
        if isinstance(item, Skipped):
            hidden, other = hidden + (item.why == "hidden"), other + (item.why == "kind")
            continue
        size = _size(item)
        count, total = count + 1, total + (size or 0)
        if len(files) < MOST_LISTED:
            files.append((item.source, size))
    return Listing(tuple(files), count, total, hidden, other)


def summarize_here(
    registry: Registry,
    request: BatchRequest,
    cancel: threading.Event | None = None,
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    force: bool = False,
) -> Iterator[SummarizeEvent]:
    """The events of tasks.summarize. What is asked is remembered until it is done. Raises as `open_model` and that."""
    kept = replace(
        request, paths=tuple(path.absolute() for path in request.paths), out=request.out.absolute(), redo=False
    )
    opened = open_model(
        registry,
        request.model,
        request.adapter,
        n_ctx=n_ctx,
        n_threads=n_threads,
        n_slots=None,
        worker=True,
        exact=True,
        force=force,
    )
    try:
        adapter = opened.adapter
        asked = SummarizeRequest(
            paths=request.paths, out=request.out, model=opened.model.name,
            model_sha256=registry.sha256(opened.model.path), adapter=adapter.name if adapter else None,
            adapter_sha256=registry.sha256(adapter.path) if adapter else None,
            adapter_scale=adapter.scale if adapter else 1.0, wish=request.wish,
            part_tokens=opened.model.chunk_tokens, retry_failed=request.retry_failed, redo=request.redo,
        )  # fmt: skip
        for number, event in enumerate(summarize(asked, EngineWriter(opened.engine), cancel)):
            if number == 0:
                _LEFT.remember(registry.home, kept)
            if isinstance(event, Done):
                _LEFT.forget(registry.home)
            yield event
    finally:
        opened.engine.close()


def left(home: Home) -> BatchRequest | None:
    """What was asked of a batch that did not come to its end."""
    return _LEFT.of(home)


def forget(home: Home) -> None:
    """Do not offer to go on with it; its output stays."""
    _LEFT.forget(home)


def results(out: Path) -> list[dict[str, Any]]:
    """The rows of an output, the last one of each document. Raises DataError for a file that holds something else."""
    rows: dict[str, dict[str, Any]] = {}
    path = rows_path(out, format_of(out))
    for number, row in jsonl.read(path):
        if not isinstance(row, dict) or entry_of(row) is None:
            raise DataError("is no summary.", "Name an output of `localllm summarize`.", path=path, line=number)
        rows[row["source"]] = row
    return list(rows.values())


def text_of(row: dict[str, Any]) -> str:
    """The text that a row is the summary of. Raises DataError where it is not there any more, or another one."""
    name = str(row["source"])
    table, _, number = name.rpartition(":")
    path = Path(table) if number.isdecimal() and not Path(name).exists() else Path(name)
    for item in read(Found(path)):
        if isinstance(item, Unreadable):
            raise DataError(str(item))
        if not isinstance(item, Skipped) and item.source == name:
            if item.sha256 != row["sha256"]:
                raise DataError(f"{name} has changed since it was summarized.", "Summarize it again.")
            return item.text
    raise DataError(f"{name} is not there any more.")


def _size(item: Found | Unreadable) -> int | None:
    try:
        return item.path.stat().st_size if item.path else None
    except (OSError, ValueError):
        return None
