"""Files to raw rows with the line each begins on: JSON Lines, a JSON array, CSV, TSV, Parquet, plain text.

A row that cannot be read is kept as a problem with its line, so that one pass finds all of them; only a file that is
none of these as a whole raises DataError.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from localllm.errors import DataError

EXPECTED = (
    'A row is {"messages": […]}, {"prompt", "completion"}, {"instruction", "input", "output"}, '
    '{"question", "answer"}, {"conversations": […]} or {"text"}.'
)
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")
_BOMS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_PACKED = ((b"\x1f\x8b", "gzip"), (b"PK\x03\x04", "zip"), (b"\x28\xb5\x2f\xfd", "zstandard"), (b"BZh", "bzip2"))
_TEXT_ROW = 4000
"""Characters of a row that is cut from a plain text: about a thousand tokens of English."""


@dataclass(frozen=True)
class RawRow:
    """One row as it was written, or what is wrong with it."""

    line: int
    """From 1; the number of the row in Parquet, which has no lines."""
    value: Any = None
    problem: str = ""


@dataclass(frozen=True)
class Source:
    """A file's rows, in order."""

    kind: str
    """The file's format, as it is said to a person."""
    unit: Literal["line", "row"]
    """What `RawRow.line` counts."""
    rows: list[RawRow]


def read_source(path: Path) -> Source:
    """Every row of one file. Raises DataError for a file that is missing, empty, binary or of no known kind."""
    from localllm.data import tables

    content = _bytes(path)
    if content.startswith(b"PAR1"):
        return Source("Parquet", "row", list(tables.parquet_rows(path)))
    content = _utf8(path, content)
    if not content.strip():
        raise DataError("the file is empty.", EXPECTED, path=path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return Source(suffix[1:].upper(), "line", list(tables.csv_rows(path, _text(path, content))))
    if suffix in (".txt", ".md"):
        return Source("plain text", "line", list(_paragraphs(_text(path, content))))
    if content.lstrip()[:1] == b"[":
        return Source("a JSON array", "line", list(array_rows(_text(path, content))))
    return Source("JSON Lines", "line", _lines(path, content))


def _bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError("there is no such file.", "Check the path.", path=path) from None
    except IsADirectoryError:
        raise DataError("this is a folder.", "Give one file of it.", path=path) from None
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}.", path=path) from error
    for magic, name in _PACKED:
        if content.startswith(magic):
            raise DataError(f"this is a {name} file.", "Unpack it first.", path=path)
    return content


def _utf8(path: Path, content: bytes) -> bytes:
    """The content without a byte order mark, UTF-16 turned into UTF-8. Raises DataError for a binary file."""
    if any(content.startswith(bom) for bom, _ in _BOMS):
        try:
            return content.decode("utf-16").encode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            message = f"not UTF-16 text (byte {error.start}), though it begins like it."
            raise DataError(message, "Save the file as UTF-8.", path=path) from None
    content = content.removeprefix(codecs.BOM_UTF8)
    if b"\0" in content[:4096]:
        raise DataError("this is a binary file, or text that is not UTF-8.", EXPECTED, path=path)
    return content


def _text(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError("not UTF-8 text.", "Save the file as UTF-8.", path=path, line=line) from None


def _lines(path: Path, content: bytes) -> list[RawRow]:
    # split on \n alone, not splitlines(): JSON strings may hold U+2028 and the like
    rows = [json_line(number, raw) for number, raw in enumerate(content.split(b"\n"), start=1) if raw.strip()]
    if rows[0].problem and len(rows) > 1:
        try:
            whole = json.loads(content)
        except (ValueError, RecursionError):
            return rows
        keys = ", ".join(json.dumps(str(key)) for key in list(whole)[:5])
        raise DataError(f"one JSON object ({keys}), not rows.", "Save the list inside it as its own file.", path=path)
    return rows


def json_line(number: int, raw: bytes) -> RawRow:
    """A line of JSON Lines, from its bytes in UTF-8."""
    try:
        return RawRow(number, json.loads(raw.decode("utf-8")))
    except UnicodeDecodeError as error:
        return RawRow(number, problem=f"not UTF-8 (byte {error.start + 1} of the line).")
    except json.JSONDecodeError as error:
        return RawRow(number, problem=f"not JSON ({error.msg}, column {error.colno}).")
    except (ValueError, RecursionError) as error:
        return RawRow(number, problem=f"not JSON ({error}).")


def array_rows(text: str) -> Iterator[RawRow]:
    """Elements of a JSON array, each with the line that it begins on; the last may be what is wrong with the array."""
    decoder, position, line, counted = json.JSONDecoder(), text.index("[") + 1, 1, 0
    first = True
    while True:
        position = _after_space(text, position)
        line, counted = line + text.count("\n", counted, position), position
        found = text[position : position + 1]
        if found == "]":
            rest = _after_space(text, position + 1)
            if rest < len(text):
                yield RawRow(text.count("\n", 0, rest) + 1, problem="there is something after the end of the array.")
            return
        if not first and found != ",":
            yield RawRow(line, problem=f"not a JSON array of rows ({'a comma' if found else 'its end'} is missing).")
            return
        try:
            start = position if first else _after_space(text, position + 1)
            row, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            reason, at = (error.msg, error.lineno) if isinstance(error, json.JSONDecodeError) else (str(error), line)
            yield RawRow(at, problem=f"not a JSON array of rows ({reason}).")
            return
        line, counted = line + text.count("\n", counted, start), start
        yield RawRow(line, row)
        first = False


def _after_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\n", "\r", "\t"):
        position += 1
    return position


def _paragraphs(text: str) -> Iterator[RawRow]:
    """A plain text as consecutive {"text"} rows cut between paragraphs; together they are the text."""
    from localllm.data.chunking import split_text

    line, counted = 1, 0
    chunks = list(split_text(text, _TEXT_ROW, len))
    for chunk in chunks:
        line, counted = line + text.count("\n", counted, chunk.start), chunk.start
        yield RawRow(line, {"text": chunk.text, "continues": chunk is not chunks[-1]})
