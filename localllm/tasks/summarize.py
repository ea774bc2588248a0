"""Summaries of whole documents, in batch: split, summarize the parts, combine until one summary remains.

Each document is a row of its own, written when it is finished; an error is a row too. A second run skips every row that
is there for the same bytes and settings.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from localllm import jsonl
from localllm.data.chunking import split_text, unwrap
from localllm.data.documents import Document, Found, Skipped, Unreadable, find, load, read
from localllm.engine.base import Engine, Finished, Request, TextDelta, stream
from localllm.errors import CancelledError, DataError, EngineError, StorageError, UsageError
from localllm.types import Chunk, FinishReason, Message, Sampling

PART_PROMPT = "Summarize the following text.\n\n{text}"
COMBINE_PROMPT = "Combine these summaries of the parts of one text, in order, into one short summary.\n\n{text}"
_SMALLEST_PART = 48  # tokens; below this a summary is as long as what it sums up


@dataclass(frozen=True)
class SummarizeRequest:
    """What to summarize and how. The hashes name the exact model and adapter, and decide what is done already."""

    paths: tuple[Path, ...]
    out: Path | None
    model: str
    model_sha256: str
    adapter: str | None = None
    adapter_sha256: str | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=192))
    part_tokens: int | None = None
    """Tokens of text in a part; None takes what the context allows."""
    retry_failed: bool = False

    def settings_hash(self) -> str:
        """Hex digest of everything but the documents that decides what a summary says."""
        files = (self.model_sha256, self.adapter_sha256)
        facts = [*files, repr(self.sampling), self.part_tokens, PART_PROMPT, COMBINE_PROMPT]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Started:
    """What there is to do: `documents` in all, `skipped` of them done by an earlier run."""

    documents: int
    skipped: int


@dataclass(frozen=True)
class PartDone:
    """One piece of a document has been read: part `done` of `total` in combining round `level` (0: the text itself)."""

    source: str
    level: int
    done: int
    total: int


@dataclass(frozen=True)
class DocumentDone:
    """A document's row, as written to the output; `row["error"]` is None or what went wrong."""

    row: dict[str, Any]


@dataclass(frozen=True)
class Done:
    """Totals of this run; `failed` counts all documents without a summary, those of earlier runs included."""

    documents: int
    skipped: int
    failed: int
    prompt_tokens: int
    output_tokens: int
    seconds: float


SummarizeEvent = Started | PartDone | DocumentDone | Done


@dataclass(frozen=True)
class _Summary:
    text: str
    reason: FinishReason
    prompt_tokens: int
    output_tokens: int


def summarize(
    request: SummarizeRequest, engine: Engine, cancel: threading.Event | None = None
) -> Iterator[SummarizeEvent]:
    """Summarize documents one after the other. Raises UsageError, StorageError, and CancelledError when stopped.

    What goes wrong with one document is a row with `error`; the others go on.
    """
    documents = [item for item in find(request.paths) if not isinstance(item, Skipped)]
    if not documents:
        raise UsageError("There is nothing to summarize: no readable documents were found.", "Name files or folders.")
    summarizer = _Summarizer(request, engine, cancel or threading.Event())
    finished = _finished_rows(request)
    output = jsonl.Appender(request.out) if request.out else None
    begin = time.perf_counter()
    failed = prompt_tokens = output_tokens = skipped = 0
    try:
        todo = []
        for item in documents:
            earlier = finished.get((item.source, _sha256(item)))
            if earlier is None or (earlier["error"] and request.retry_failed):
                todo.append(item)
            else:
                skipped, failed = skipped + 1, failed + bool(earlier["error"])
        yield Started(len(documents), skipped)
        for document in _documents(todo, finished, request.retry_failed, cancel):
            row = yield from summarizer.document(document)
            if output:
                output.append(row)
            failed += bool(row["error"])
            prompt_tokens, output_tokens = prompt_tokens + row["prompt_tokens"], output_tokens + row["output_tokens"]
            yield DocumentDone(row)
    finally:
        if output:
            output.close()
    yield Done(len(documents), skipped, failed, prompt_tokens, output_tokens, time.perf_counter() - begin)


class _Summarizer:
    """Turns one document after another into rows."""

    def __init__(self, request: SummarizeRequest, engine: Engine, cancel: threading.Event) -> None:
        self._request, self._engine, self._cancel = request, engine, cancel
        self._budget, self._sampling = _budget(request, engine)
        self._settings = request.settings_hash()

    def document(self, document: Document | Unreadable) -> Generator[SummarizeEvent, None, dict[str, Any]]:
        """Yields PartDone events and returns the row."""
        begin = time.perf_counter()
        row = self._empty_row(document.source) | {"sha256": document.sha256}
        if isinstance(document, Unreadable):
            return row | {"error": str(document)}
        try:
            row["characters"] = len(document.text)
            chunks = list(split_text(document.text, self._budget, self._count))
            row["summary"] = yield from self._combine(document.source, row, chunks)
        except EngineError as e:
            row["error"] = str(e)
        row["seconds"] = round(time.perf_counter() - begin, 3)
        return row

    def _combine(self, source: str, row: dict[str, Any], chunks: list[Chunk]) -> Generator[SummarizeEvent, None, str]:
        texts = []
        for i, chunk in enumerate(chunks, 1):
            summary = self._ask(PART_PROMPT, unwrap(chunk.text).strip(), row)
            texts.append(summary.text)
            row["parts"].append(_part(chunk, summary))
            yield PartDone(source, 0, i, len(chunks))
        level = 0
        while len(texts) > 1:
            level += 1
            groups = self._group(texts)
            texts = []
            for i, group in enumerate(groups, 1):
                texts.append(self._ask(COMBINE_PROMPT, "\n".join(group), row).text if len(group) > 1 else group[0])
                yield PartDone(source, level, i, len(groups))
        row["levels"] = level
        return texts[0]

    def _group(self, texts: list[str]) -> list[list[str]]:
        """Consecutive summaries that fit together; two or more in each group but the last, so every round ends."""
        groups: list[list[str]] = [[]]
        used = 0
        for text in texts:
            tokens = self._count(text) + 1
            if len(groups[-1]) >= 2 and used + tokens > self._budget:
                groups.append([])
                used = 0
            groups[-1].append(text)
            used += tokens
        return groups

    def _ask(self, prompt: str, text: str, row: dict[str, Any]) -> _Summary:
        tokens = self._engine.encode_chat([Message("user", prompt.format(text=text))])
        pieces: list[str] = []
        for event in stream(self._engine, Request(tuple(tokens), self._sampling), self._cancel):
            if isinstance(event, TextDelta):
                pieces.append(event.text)
            if isinstance(event, Finished):
                reason, usage = event.reason, event.usage
        if reason == "cancelled":
            raise CancelledError("Stopped.", "Finished documents are kept; run the same command again to go on.")
        row["prompt_tokens"] += usage.prompt_tokens
        row["output_tokens"] += usage.output_tokens
        answer = " ".join("".join(pieces).split())
        if not answer:
            raise EngineError("The model wrote nothing for a part.", "Choose a larger model with --model.")
        return _Summary(answer, reason, usage.prompt_tokens, usage.output_tokens)

    def _count(self, text: str) -> int:
        return len(self._engine.tokenize(text, add_special=False, parse_special=False))

    def _empty_row(self, source: str) -> dict[str, Any]:
        request = self._request
        return {
            "source": source, "sha256": None, "summary": None, "error": None, "parts": [], "levels": 0,
            "characters": 0, "prompt_tokens": 0, "output_tokens": 0, "seconds": 0.0,
            "model": request.model, "model_sha256": request.model_sha256,
            "adapter": request.adapter, "adapter_sha256": request.adapter_sha256, "settings": self._settings,
        }  # fmt: skip


def _part(chunk: Chunk, summary: _Summary) -> dict[str, Any]:
    return {
        "start": chunk.start,
        "end": chunk.end,
        "tokens": chunk.tokens,
        "summary": summary.text,
        "finish_reason": summary.reason,
        "output_tokens": summary.output_tokens,
    }


def _budget(request: SummarizeRequest, engine: Engine) -> tuple[int, Sampling]:
    """Tokens of text for one part, and the sampling with an answer limit that lets two summaries fit one prompt."""
    frame = max(len(engine.encode_chat([Message("user", p.format(text=""))])) for p in (PART_PROMPT, COMBINE_PROMPT))
    n_ctx = engine.info.n_ctx
    room = n_ctx - frame - 8  # a few tokens may join differently at the borders of the text
    answer = min(request.sampling.max_tokens or room // 4, room // 4)
    budget = min(room - answer, request.part_tokens or room)
    if budget < _SMALLEST_PART:
        message = f"A context of {n_ctx} tokens leaves {max(budget, 0)} for the text of a part, too few to summarize."
        raise UsageError(message, "Raise --ctx or --part-tokens.")
    return budget, replace(request.sampling, max_tokens=max(8, min(answer, budget // 2 - 2)))


def _finished_rows(request: SummarizeRequest) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Rows of earlier runs with these settings by source and content. A half-written last line does not count."""
    out = request.out
    if out is None or not out.exists():
        return {}
    if not out.is_file():
        what = "a folder" if out.is_dir() else "not a regular file"
        raise StorageError(f"{out} is {what}.", "Name a file with --out.")
    rows: dict[tuple[str, str | None], dict[str, Any]] = {}
    settings = request.settings_hash()
    for raw in out.read_bytes().split(b"\n")[:-1]:
        try:
            row = json.loads(raw)
        except ValueError:
            message = f"{out} exists and is not a file of summaries."
            raise UsageError(message, "Name another file with --out.") from None
        if isinstance(row, dict) and row.get("settings") == settings:
            rows[str(row.get("source")), row.get("sha256")] = row
    return rows


def _sha256(item: Found | Unreadable) -> str | None:
    try:
        return load(item).sha256 if isinstance(item, Found) and item.path else None
    except DataError:
        return None


def _documents(
    items: list[Found | Unreadable],
    finished: dict[tuple[str, str | None], dict[str, Any]],
    retry_failed: bool,
    cancel: threading.Event | None,
) -> Iterator[Document | Unreadable]:
    """The documents of the files; rows of a table that are finished are passed over."""
    for item in items:
        for document in read(item, cancel=cancel) if isinstance(item, Found) else (item,):
            if isinstance(document, Skipped):
                continue
            earlier = finished.get((document.source, document.sha256))
            if earlier is None or (earlier["error"] and retry_failed):
                yield document
