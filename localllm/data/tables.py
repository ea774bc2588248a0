"""Tables to rows: CSV and TSV with the line that each record begins on, Parquet through pyarrow where it is there."""

from __future__ import annotations

import csv
import io
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from localllm.data.sources import EXPECTED, RawRow
from localllm.errors import DataError

_FIELD_LIMIT = threading.Lock()
"""The longest field is a setting of the whole csv module."""


def csv_rows(path: Path, text: str) -> list[RawRow]:
    """Records as {column: text}. Raises DataError for a header that names no columns, or one twice."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    with _FIELD_LIMIT:
        before = csv.field_size_limit(sys.maxsize)
        try:
            records = list(_records(text, delimiter))
        finally:
            csv.field_size_limit(before)
    header = [name.strip() for name in records[0][1]] if records else []
    if not any(header):
        raise DataError("its first line names no columns.", EXPECTED, path=path, line=1)
    twice = [name for name, count in Counter(header).items() if count > 1 and name]
    if twice:
        raise DataError(f"the column {twice[0]!r} is there twice.", "Rename one of them.", path=path, line=1)
    return [_row(line, fields, problem, header) for line, fields, problem in records[1:] if fields or problem]


def _delimiter(text: str) -> str:
    header = text.lstrip("\r\n").split("\n", 1)[0]
    return max(",;\t", key=header.count)


def _records(text: str, delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """(line it begins on, fields, problem) of every record; nothing can be told apart after a broken quote."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            yield line, [], f"the record that begins here is not CSV ({error}): look for a quote that is not closed."
            return


def _row(line: int, fields: list[str], problem: str, header: list[str]) -> RawRow:
    if problem:
        return RawRow(line, problem=problem)
    if len(fields) != len(header):
        return RawRow(line, problem=f"{len(fields)} fields, but the header names {len(header)} columns.")
    return RawRow(line, dict(zip(header, fields, strict=True)))


def check_parquet(path: Path) -> None:
    """Raises DataError when pyarrow is not installed."""
    try:
        import_module("pyarrow.parquet")  # an extra: type checkers need not have it
    except ImportError:
        message = "reading Parquet needs pyarrow, which is not installed."
        raise DataError(message, "pip install 'localllm[parquet]', or save it as JSONL.", path=path) from None


def parquet_rows(path: Path) -> Iterator[RawRow]:
    """Rows numbered from 1. Raises DataError when pyarrow is not installed or cannot read the file."""
    check_parquet(path)
    pyarrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches():
            for value in batch.to_pylist():
                number += 1
                yield RawRow(number, value)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"pyarrow cannot read it ({reason}).", "Fetch the file again.", path=path) from error
