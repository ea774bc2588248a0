"""Documents: files -> text."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from localllm.errors import DataError

SUFFIXES = (".txt", ".md")
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def find_documents(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths themselves, folders replaced by the .txt and .md files below them, sorted, each file once.

    A path that does not exist or is of another kind comes through as it is: reading it says what is wrong.
    """
    seen: set[Path] = set()
    for path in paths:
        for found in _walk(path) if path.is_dir() else (path,):
            if (key := found.resolve()) not in seen:
                seen.add(key)
                yield found


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(parent, name)


def decode_document(path: Path, content: bytes) -> str:
    """The text of a document's bytes, line ends as they are. Raises DataError for another kind, binary or empty."""
    if path.suffix.lower() not in SUFFIXES:
        message = f"is not a text document ({' or '.join(SUFFIXES)})."
        raise DataError(message, "Save it as plain text first.", path=path)
    encoding = next((name for bom, name in _BOMS if content.startswith(bom)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as e:
        message = f"is not {encoding.upper().removesuffix('-SIG')} text (byte {e.start})."
        raise DataError(message, "Save it as UTF-8.", path=path) from e
    if "\0" in text:
        raise DataError("is a binary file.", "Only text can be summarized.", path=path)
    if not text.strip():
        raise DataError("holds no text.", "Leave it out.", path=path)
    return text


def read_document(path: Path) -> bytes:
    """The bytes of a document. Raises DataError when it is missing, a folder, or unreadable."""
    try:
        return path.read_bytes()
    except OSError as e:
        raise DataError(f"cannot be read ({e.strerror}).", "Check the path and its permissions.", path=path) from e
