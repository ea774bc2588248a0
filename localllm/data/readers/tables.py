"""Rows of JSON Lines, a JSON array, CSV or TSV as documents: one field is the text, and `id` names the row."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.data.readers.text import decode
from localllm.data.sources import RawRow, array_rows, json_line
from localllm.data.tables import csv_rows
from localllm.errors import DataError

_SHOWN = 8  # fields that an error names


@dataclass(frozen=True)
class RowText:
    """The text of one row, or what is wrong with it."""

    line: int
    text: str = ""
    id: str | None = None
    title: str | None = None
    problem: str = ""
    hint: str = ""


def rows(content: bytes, path: Path, field: str | None) -> Iterator[RowText]:
    """The rows in order. Without `field` the text is `text`, else the only field that holds text.

    Raises DataError when the file is not of its kind as a whole.
    """
    for row in _raw(content, path):
        yield _row(row, field) if not row.problem else RowText(row.line, problem=row.problem, hint="Correct the row.")


def _raw(content: bytes, path: Path) -> Iterator[RawRow]:
    text, _, _ = decode(content)
    if path.suffix.lower() in (".csv", ".tsv"):
        try:
            return iter(csv_rows(path, text))
        except DataError as error:
            where = f"{path}, line {error.line}: " if error.line else f"{path}: "
            message = error.message.removeprefix(where)
            raise DataError(message, "The first line of a table names its columns.") from None
    if text.lstrip()[:1] == "[":
        return array_rows(text)
    return _json_rows(text)


def _json_rows(text: str) -> Iterator[RawRow]:
    """JSON Lines; a file that is one object, on however many lines, is one row."""
    if text.lstrip()[:1] == "{" and json_line(1, text.split("\n", 1)[0].encode("utf-8", "surrogatepass")).problem:
        try:
            yield RawRow(1, json.loads(text))
            return
        except (ValueError, RecursionError):
            pass
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if line.strip():
            yield json_line(number, line.encode("utf-8", "surrogatepass"))


def _row(row: RawRow, field: str | None) -> RowText:
    value = row.value
    if isinstance(value, str) and field is None:
        return RowText(row.line, value)
    if not isinstance(value, dict):
        return RowText(row.line, problem="is not an object with fields.", hint='A row is {"text": "…"}.')
    name, problem = _field(value, field)
    if problem:
        return RowText(row.line, problem=problem, hint="Name the field that holds the text with --field.")
    given, title = value.get("id"), value.get("title")
    known = str(given) if isinstance(given, str | int) and not isinstance(given, bool) else None
    return RowText(row.line, value[name], known, title if isinstance(title, str) and name != "title" else None)


def _field(value: dict[str, Any], field: str | None) -> tuple[str, str]:
    """(the field that holds the text, what is wrong)."""
    names = ", ".join(list(value)[:_SHOWN]) + (", …" if len(value) > _SHOWN else "") or "none"
    if field is not None:
        if field not in value:
            return "", f"has no field {field!r}; its fields: {names}."
        return field, "" if isinstance(value[field], str) else f"the field {field!r} holds no text."
    if isinstance(value.get("text"), str):
        return "text", ""
    texts = [name for name, content in value.items() if isinstance(content, str) and name != "id"]
    if len(texts) == 1:
        return texts[0], ""
    return "", f"which field is the text is not clear; its fields: {names}."
