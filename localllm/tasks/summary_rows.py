"""A document's row in the output, and the same rows as Markdown or CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from localllm import jsonl
from localllm.data.documents import Document, Unreadable
from localllm.tasks.results import Entry
from localllm.tasks.summary_plan import Answer, Summary
from localllm.weights.beside import beside, storage_error

Format = Literal["jsonl", "md", "csv"]
FORMATS: tuple[Format, ...] = ("jsonl", "md", "csv")
_BY_SUFFIX: dict[str, Format] = {".md": "md", ".markdown": "md", ".csv": "csv"}
COLUMNS = (
    "source", "id", "title", "summary", "error", "strategy", "characters", "prompt_tokens", "output_tokens",
    "finish_reason", "sha256", "model", "model_sha256", "adapter", "adapter_sha256", "settings",
)  # fmt: skip
"""Of a CSV file: what of a row is a single value."""


def format_of(path: Path) -> Format:
    """What the name of an output file asks for."""
    return _BY_SUFFIX.get(path.suffix.lower(), "jsonl")


def rows_path(out: Path, kind: Format) -> Path:
    """Where the rows are: in the output, or beside one that is made from them."""
    return out if kind == "jsonl" else out.with_name(f"{out.name}.jsonl")


def new_row(document: Document | Unreadable, origin: dict[str, Any]) -> dict[str, Any]:
    """The row of a document before it is summarized; `origin` names the model, the adapter and the settings."""
    read = document if isinstance(document, Document) else None
    return {
        "source": document.source,
        "id": read.id if read else None,
        "title": read.title if read else None,
        "sha256": document.sha256,
        "summary": None,
        "error": None if read else str(document),
        "strategy": None,
        "levels": 0,
        "parts": [],
        "finish_reason": None,
        "warnings": list(read.warnings) if read else [],
        "characters": len(read.text) if read else 0,
        "prompt_tokens": 0,
        "output_tokens": 0,
        **origin,
        "timings": {"prefill_seconds": 0.0, "decode_seconds": 0.0},
    }


def add_summary(row: dict[str, Any], summary: Summary) -> None:
    row["summary"], row["strategy"], row["levels"] = summary.value, summary.strategy, summary.levels
    row["parts"], row["finish_reason"] = list(summary.parts), summary.finish_reason
    row["warnings"] += summary.warnings


def add_costs(row: dict[str, Any], answers: Iterable[Answer]) -> None:
    """Tokens and seconds of all answers; those that were computed side by side add up to more than the clock shows."""
    for answer in answers:
        row["prompt_tokens"] += answer.prompt_tokens
        row["output_tokens"] += answer.output_tokens
        for name in ("prefill_seconds", "decode_seconds"):
            row["timings"][name] = round(row["timings"][name] + getattr(answer, name), 4)


def entry_of(row: dict[str, Any]) -> Entry | None:
    """What a row is the result of: the document's content and the settings. None for what is no summary."""
    if not {"source", "sha256", "summary", "error", "parts", "settings"} <= row.keys():
        return None
    return Entry(str(row["source"]), entry_key(row["sha256"], str(row["settings"])), bool(row["error"]))


def entry_key(sha256: str | None, settings: str) -> str:
    return f"{sha256}:{settings}"


def in_format(row: dict[str, Any], kind: Format, *, first: bool) -> str:
    """One row as text; the `first` of a CSV file brings its column names along."""
    if kind == "jsonl":
        return json.dumps(row, ensure_ascii=False) + "\n"
    summary = row["summary"]
    text = summary if isinstance(summary, str) else json.dumps(summary, ensure_ascii=False, indent=2)
    text = "" if summary is None else text
    if kind == "csv":
        buffer = io.StringIO()
        table = csv.writer(buffer, lineterminator="\n")
        if first:
            table.writerow(COLUMNS)
        table.writerow([text if name == "summary" else row.get(name) for name in COLUMNS])
        return buffer.getvalue()
    heading = f"## {' '.join(str(row['title'] or row['source']).split())}"
    if row["error"]:
        body = f"*Not summarized: {row['error']}*"
    else:
        body = text if isinstance(summary, str) else f"```json\n{text}\n```"
    return f"{'' if first else chr(10)}{heading}\n\n{body}\n\n`{row['source']}`\n"


def write_as(kind: Format, rows: Path, out: Path) -> None:
    """Make the output from the rows, beside and renamed. Raises StorageError; then an earlier output is as it was."""
    temporary = beside(out)
    try:
        with temporary.open("w", encoding="utf-8", newline="", errors="replace") as file:
            file.writelines(_texts(rows, kind))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, out)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise storage_error(out, error) from error


def _texts(rows: Path, kind: Format) -> Iterator[str]:
    for number, (_, row) in enumerate(jsonl.read(rows)):
        yield in_format(row, kind, first=number == 0)
