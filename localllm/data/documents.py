"""Documents: files, folders, patterns and standard input -> texts, one at a time.

`find` says what there is without opening it; `load` has the bytes and their hash; `parse` makes texts of them, one for
each row of a table; `read_documents` is the three together. What cannot be read is a value like any other, so that one
bad file among ten thousand ends nothing.
"""

from __future__ import annotations

import glob
import hashlib
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from localllm.data.readers import kinds
from localllm.data.readers.base import Extract
from localllm.errors import DataError

SUFFIXES = tuple(kinds.BY_SUFFIX)
"""What is read in folders. A file that is named itself may be called anything."""
MAX_BYTES = 512 << 20  # of a file
_STDIN = Path("-")

Done = Callable[[str, str], bool]
"""Whether the document of this source and SHA-256 is finished already."""


@dataclass(frozen=True)
class Document:
    """A text and where it comes from."""

    source: str
    """As it is said to a person: the path, `path:line` for a row of a table, `-` for standard input."""
    path: Path | None
    sha256: str
    """Of the file's bytes; of the text for a row, so that a change in one row leaves the others as they were."""
    text: str
    """What positions count characters of: for plain text the decoded file, for other formats what was found in it."""
    format: str
    title: str | None = None
    encoding: str | None = None
    warnings: tuple[str, ...] = ()
    id: str | None = None
    """A row's own name for itself."""


@dataclass(frozen=True)
class Unreadable:
    """A document that is not there, and what to do about it."""

    source: str
    path: Path | None
    sha256: str | None
    """None where not even the bytes could be read."""
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.source}: {self.message} {self.hint}".strip()


@dataclass(frozen=True)
class Skipped:
    """Something that was passed over: `hidden`, of a `kind` that is no document, or `done` already."""

    source: str
    why: str


@dataclass(frozen=True)
class Found:
    """A file to read; standard input where `path` is None."""

    path: Path | None

    @property
    def source(self) -> str:
        """What a person calls it."""
        return "-" if self.path is None else str(self.path)


@dataclass(frozen=True)
class Loaded:
    """The bytes of a found file."""

    found: Found
    content: bytes
    sha256: str


def read_documents(
    paths: Sequence[Path],
    *,
    field: str | None = None,
    done: Done | None = None,
    cancel: threading.Event | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[Document | Unreadable | Skipped]:
    """Every document below the paths, one in memory at a time; `field` names the text of a table's rows.

    A file for which `done` is true is not parsed. Raises CancelledError soon after `cancel` is set in the midst of a
    PDF; between documents it is for the caller to look.
    """
    for found in find(paths):
        if isinstance(found, Found):
            yield from read(found, field=field, done=done, cancel=cancel, stdin=stdin)
        else:
            yield found


def read(
    found: Found,
    *,
    field: str | None = None,
    done: Done | None = None,
    cancel: threading.Event | None = None,
    stdin: BinaryIO | None = None,
) -> Iterator[Document | Unreadable | Skipped]:
    """The documents of one file; see `read_documents`."""
    try:
        loaded = load(found, stdin)
    except DataError as error:
        yield Unreadable(found.source, found.path, None, error.message, error.hint)
        return
    if done is not None and done(found.source, loaded.sha256):
        yield Skipped(found.source, "done")
        return
    for item in parse(loaded, field=field, cancel=cancel):
        finished = done is not None and item.sha256 is not None and item.source != found.source
        yield Skipped(item.source, "done") if finished and done and done(item.source, item.sha256 or "") else item


def find(paths: Sequence[Path]) -> Iterator[Found | Skipped | Unreadable]:
    """The files that the paths name, each once: folders walked in the order of names, patterns like `*.md` filled in.

    A path that does not exist comes through as it is: loading it says what is wrong.
    """
    seen: set[str] = set()
    for path in paths:
        for item in _expand(path):
            if isinstance(item, Found) and item.path is not None:
                key = item.source if "\0" in item.source else os.path.realpath(item.path)
                if key in seen:
                    continue
                seen.add(key)
            yield item


def _expand(path: Path) -> Iterator[Found | Skipped | Unreadable]:
    if path == _STDIN:
        yield Found(None)
    elif path.is_dir():
        yield from _walk(path)
    elif not path.exists() and glob.has_magic(str(path)) and (names := sorted(glob.glob(str(path), recursive=True))):
        for name in map(Path, names):
            yield from _walk(name) if name.is_dir() else (Found(name),)
    else:
        yield Found(path)


def _walk(folder: Path) -> Iterator[Found | Skipped | Unreadable]:
    errors: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=errors.append):
        yield from (Skipped(str(Path(parent, name)), "hidden") for name in sorted(folders) if name.startswith("."))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if name.startswith("."):
                yield Skipped(str(path), "hidden")
            elif path.suffix.lower() in SUFFIXES and path.is_file():
                yield Found(path)
            else:
                yield Skipped(str(path), "kind")
        yield from _unreadable_folders(errors)
    yield from _unreadable_folders(errors)


def _unreadable_folders(errors: list[OSError]) -> Iterator[Unreadable]:
    while errors:
        error = errors.pop(0)
        path = Path(str(error.filename))
        yield Unreadable(str(path), path, None, f"cannot be read ({error.strerror}).", "Check its permissions.")


def load(found: Found, stdin: BinaryIO | None = None) -> Loaded:
    """The bytes of a file. Raises DataError when it is missing, a folder, unreadable, empty or very large."""
    try:
        if found.path is None:
            content = (stdin or sys.stdin.buffer).read(MAX_BYTES + 1)
        else:
            with found.path.open("rb") as file:
                _check_kind(file)
                content = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot be read ({reason}).", "Check the path and its permissions.") from error
    except ValueError:  # a zero byte in the name
        raise DataError("is no possible file name.", "Check the path.") from None
    if len(content) > MAX_BYTES:
        raise DataError(f"is larger than {MAX_BYTES >> 20} MB.", "Split it into smaller files.")
    if not content:
        raise DataError("is empty.", "Leave it out.")
    return Loaded(found, content, hashlib.sha256(content).hexdigest())


def _check_kind(file: BinaryIO) -> None:
    """A device would be read forever; a pipe, as in `<(command)`, is fine."""
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise DataError("is a device, not a file.", "Name a file.")


def parse(
    loaded: Loaded, *, field: str | None = None, cancel: threading.Event | None = None
) -> Iterator[Document | Unreadable]:
    """The documents in a file's bytes: one, or one for each row of JSON Lines, a JSON array or a table."""
    found = loaded.found
    suffix = found.path.suffix if found.path else ""
    try:
        kind = kinds.kind_of(loaded.content, suffix)
        if kind in (kinds.JSON, kinds.CSV):
            yield from _rows(loaded, kind, field)
        else:
            yield _document(loaded, kind, _extract(loaded.content, kind, cancel))
    except DataError as error:
        yield Unreadable(found.source, found.path, loaded.sha256, error.message, error.hint)
    except (MemoryError, RecursionError) as error:
        why = f"needs more memory to read than there is ({type(error).__name__})."
        yield Unreadable(found.source, found.path, loaded.sha256, why, "Split it into smaller files.")


def _extract(content: bytes, kind: str, cancel: threading.Event | None) -> Extract:
    from localllm.data.readers import docx, epub, html, pdf, subtitles, text

    readers = {kinds.HTML: html.read, kinds.WORD: docx.read, kinds.EPUB: epub.read, kinds.SUBTITLES: subtitles.read}
    try:
        return pdf.read(content, cancel) if kind == kinds.PDF else readers.get(kind, text.read)(content)
    except ImportError as error:
        message = f"cannot be read: {error.name} is not installed."
        raise DataError(message, "Install this program again with all that it needs.") from None


def _document(loaded: Loaded, kind: str, extract: Extract) -> Document:
    """Raises DataError for a document without text."""
    found, text = loaded.found, _encodable(extract.text)
    if not text.strip():
        hint = "A script may write its text: save the page from a browser." if kind == kinds.HTML else "Leave it out."
        raise DataError("holds no text.", hint)
    named = kinds.BY_SUFFIX.get(found.path.suffix.lower(), kind) if found.path else kind
    warnings = extract.warnings
    if named != kind:
        called = found.path.suffix if found.path else ""
        warnings = (f"it is called {called} but is {kind}, and is read as that", *warnings)
    title = _encodable(extract.title) if extract.title else None
    return Document(found.source, found.path, loaded.sha256, text, kind, title, extract.encoding, warnings)


def _rows(loaded: Loaded, kind: str, field: str | None) -> Iterator[Document | Unreadable]:
    from localllm.data.readers import tables

    path = loaded.found.path
    assert path is not None, "standard input has no name that makes it a table"
    for row in tables.rows(loaded.content, path, field):
        source, text = f"{path}:{row.line}", _encodable(row.text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if row.problem:
            yield Unreadable(source, path, None, row.problem, row.hint)
        elif not text.strip():
            yield Unreadable(source, path, digest, "holds no text.", "Leave it out.")
        else:
            yield Document(source, path, digest, text, kind, row.title, id=row.id)


def _encodable(text: str) -> str:
    """Half of a surrogate pair, which JSON can hold and nothing can encode, replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
