"""Which format a file has: by its first bytes, and among the kinds of text by its name."""

from __future__ import annotations

import io
import re
import zipfile

from localllm.errors import DataError

TEXT, MARKDOWN, HTML, SUBTITLES = "text", "Markdown", "HTML", "subtitles"
JSON, CSV = "JSON", "CSV"
PDF, WORD, EPUB = "PDF", "Word", "EPUB"

BY_SUFFIX = {
    ".txt": TEXT, ".text": TEXT, ".md": MARKDOWN, ".markdown": MARKDOWN,
    ".html": HTML, ".htm": HTML, ".xhtml": HTML,
    ".srt": SUBTITLES, ".vtt": SUBTITLES,
    ".json": JSON, ".jsonl": JSON, ".ndjson": JSON, ".csv": CSV, ".tsv": CSV,
    ".pdf": PDF, ".docx": WORD, ".epub": EPUB,
}  # fmt: skip
PACKED = {PDF, WORD, EPUB}
"""Formats that are told by their bytes, whatever the file is called."""
_MAGIC = {
    b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image", b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image", b"RIFF": "a WebP image, WAV or AVI file", b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive", b"\xfd7zXZ": "an xz archive", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive", b"\x7fELF": "a program", b"MZ": "a program",
    b"\xcf\xfa\xed\xfe": "a program", b"GGUF": "a GGUF model", b"SQLite format 3": "an SQLite database",
    b"PAR1": "a Parquet file", b"ID3": "an MP3 file", b"OggS": "an Ogg file", b"fLaC": "a FLAC file",
    b"\x1aE\xdf\xa3": "a Matroska video", b"wOFF": "a font", b"wOF2": "a font",
}  # fmt: skip
_HINT = "Give a text, PDF, Word, EPUB, HTML or subtitle file."
_MARKUP = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html[\s>])", re.I | re.S
)


def kind_of(content: bytes, suffix: str = "") -> str:
    """The format of a file's bytes; `suffix` is how its name ends.

    Raises DataError, saying what it is, for what this program cannot read.
    """
    named = BY_SUFFIX.get(suffix.lower(), "")
    if b"%PDF-" in content[:1024]:
        return PDF
    if content.startswith(b"PK\x03\x04"):
        return _zipped(content, suffix)
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        message = "is an old Office file (.doc, .xls, .ppt), or one that is protected with a password."
        raise DataError(message, "Save it as .docx or PDF, without a password.")
    if content.startswith(b"{\\rtf"):
        raise DataError("is an RTF file.", "Save it as .docx, PDF or plain text.")
    for magic, what in _MAGIC.items():
        if content.startswith(magic) and (b"\0" in content[:4096] or not content[:256].isascii()):
            raise DataError(f"is {what}, not text.", _HINT)
    if named and named not in PACKED:
        return named
    if _MARKUP.match(content[:4096]):
        return HTML
    return SUBTITLES if content.removeprefix(b"\xef\xbb\xbf").startswith(b"WEBVTT") else TEXT


def _zipped(content: bytes, suffix: str) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, RecursionError) as error:
        what = BY_SUFFIX.get(suffix.lower(), "")
        message = f"is a damaged {what + ' file' if what in PACKED else 'ZIP archive'}: {error}."
        raise DataError(message, "Fetch or save it again.") from None
    if "word/document.xml" in names:
        return WORD
    if "META-INF/container.xml" in names:
        return EPUB
    known = {"xl/workbook.xml": "an Excel", "ppt/presentation.xml": "a PowerPoint", "content.xml": "an OpenDocument"}
    what = next((f"{name} file" for member, name in known.items() if member in names), "a ZIP archive")
    hint = "Unpack it first." if "ZIP" in what else "Save it as .docx, CSV or PDF."
    raise DataError(f"is {what}, not text.", hint)
