"""Documents: files -> text -> parts that together are the whole text, each within a token budget."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from localllm.errors import DataError
from localllm.types import Chunk

SUFFIXES = (".txt", ".md")
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_SENTENCE = re.compile(r"(?:[.!?…]+[\"'”’)\]]*\s+)|(?:[\u3002\uff01\uff1f]+[\u300d\u300f\uff09]*\s*)|\n+")
_WORD = re.compile(r"\s+")
_WRAP = re.compile(r"(?<=[^\n]{40})[ \t]*\n(?=[^\s#>*+|\d`-])")
"""A line end in the middle of wrapped prose: after a long line, and not before a heading, a list or a table."""
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

CountTokens = Callable[[str], int]


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


def unwrap(text: str) -> str:
    """Wrapped prose with each paragraph on one line, as models read and write it; other line ends stay."""
    return _WRAP.sub(" ", text.replace("\r\n", "\n"))


def split_text(text: str, budget: int, count: CountTokens) -> list[Chunk]:
    """Cut a text into consecutive parts of at most `budget` tokens that together are the text, every character once.

    Cuts fall between paragraphs; within one only where it is over the budget, then between sentences, words, and last
    characters. Raises ValueError for a budget of less than 8 tokens.
    """
    if budget < 8:
        raise ValueError(f"a budget of {budget} tokens is too small to hold text")
    chunks: list[Chunk] = []
    start = end = tokens = 0
    for unit_end, unit_tokens in _units(text, 0, len(text), budget, count, (_PARAGRAPH, _SENTENCE, _WORD)):
        if end > start and tokens + unit_tokens > budget:
            chunks.append(_chunk(text, start, end, count))
            start, tokens = end, 0
        end, tokens = unit_end, tokens + unit_tokens
    if end > start:
        chunks.append(_chunk(text, start, end, count))
    return [piece for chunk in chunks for piece in _within(text, chunk, budget, count)]


def _chunk(text: str, start: int, end: int, count: CountTokens) -> Chunk:
    return Chunk(start, end, text[start:end], count(text[start:end]))


def _within(text: str, chunk: Chunk, budget: int, count: CountTokens) -> list[Chunk]:
    """Units counted one by one can come to more tokens when joined; such a part is halved at a word."""
    if chunk.tokens <= budget:
        return [chunk]
    middle = (chunk.start + chunk.end) // 2
    cut = next((m.end() for m in _WORD.finditer(text, middle, chunk.end - 1)), middle)
    halves = (_chunk(text, chunk.start, cut, count), _chunk(text, cut, chunk.end, count))
    return [piece for half in halves for piece in _within(text, half, budget, count)]


def _units(
    text: str, start: int, end: int, budget: int, count: CountTokens, borders: Sequence[re.Pattern[str]]
) -> Iterator[tuple[int, int]]:
    """(end, tokens) of consecutive pieces within the budget, cut at the first kind of border that suffices."""
    if not borders:
        yield from _characters(text, start, end, budget, count)
        return
    cuts = [match.end() for match in borders[0].finditer(text, start, end)]
    if not cuts or cuts[-1] < end:
        cuts.append(end)
    for cut in cuts:
        tokens = count(text[start:cut])
        if tokens <= budget:
            yield cut, tokens
        else:
            yield from _units(text, start, cut, budget, count, borders[1:])
        start = cut


def _characters(text: str, start: int, end: int, budget: int, count: CountTokens) -> Iterator[tuple[int, int]]:
    """Pieces of one unbroken word: as many characters as certainly fit, for a token has at least one byte."""
    while start < end:
        size = min(end - start, budget * 4)
        while (tokens := count(text[start : start + size])) > budget:
            size = max(1, size // 2)
            if size == 1:
                tokens = count(text[start : start + 1])
                break
        start += size
        yield start, tokens
