"""Bytes to text: by a byte order mark, else as UTF-8, else by what the bytes look like; and what is no text at all."""

from __future__ import annotations

import codecs
import re

from localllm.data.readers.base import Extract
from localllm.errors import DataError

_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = ["cp1252", "cp1250", "iso8859_2", "cp1254", "cp1257"]
_OTHERS = ["cp1251", "koi8_r", "cp1253", "cp1255", "cp1256", "cp874", "cp932", "euc_jp", "gb18030", "big5", "euc_kr"]
_SAMPLE = 1 << 18  # bytes that the encoding is guessed from
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def read(content: bytes) -> Extract:
    """Plain text, every character and line end as it is. Raises DataError for a binary file."""
    text, encoding, warnings = decode(content)
    return Extract(text, encoding=encoding, warnings=warnings)


def decode(content: bytes) -> tuple[str, str, tuple[str, ...]]:
    """(text, encoding, warnings) of bytes. Raises DataError when they are no text."""
    text, encoding, warnings = _decoded(content)
    controls = len(_CONTROL.findall(text, 0, _SAMPLE))
    size = min(len(text), _SAMPLE)
    unknown = text.count("�", 0, _SAMPLE)
    if controls > 0.01 * size or unknown > 0.1 * size:
        message = "is a binary file: it holds characters that no text has."
        raise DataError(message, "Give a text, PDF, Word, EPUB, HTML or subtitle file.")
    return text, encoding, warnings


def _decoded(content: bytes) -> tuple[str, str, tuple[str, ...]]:
    encoding = _marked(content) or "utf-8"
    name = encoding.removesuffix("-sig")
    try:
        return content.decode(encoding), name, ()
    except UnicodeDecodeError:
        text = content.decode(encoding, "replace")
    bad = text.count("�")
    good = len(text) - len(text.encode("ascii", "ignore")) - bad
    if name == "utf-8" and good < 2 * bad:  # chance makes no valid UTF-8: with more of it, a few bytes are damaged
        return _guessed(content)
    return text, name, (f"some of it is not {name.upper()} and is shown as �",)


def _marked(content: bytes) -> str:
    """The encoding that a byte order mark names, or that the places of the zero bytes give away."""
    for bom, name in _BOMS:
        if content.startswith(bom):
            return name
    head = content[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 8 and min(even, odd) <= len(head) // 200:
        return "utf-16-be" if even > odd else "utf-16-le"
    return ""


def _guessed(content: bytes) -> tuple[str, str, tuple[str, ...]]:
    """Decoded as the likeliest of the encodings that were in wide use, which a warning names."""
    from charset_normalizer import from_bytes

    sample = content[:_SAMPLE]
    high = len(sample) - len(sample.translate(None, bytes(range(128, 256))))
    letters = len(re.findall(rb"[A-Za-z]", sample))
    western = high < 0.4 * letters  # letters with accents among plain ones
    matches = from_bytes(sample, cp_isolation=_WESTERN if western else _OTHERS + _WESTERN)
    names = [match.encoding for match in matches]
    if western and ("cp1252" in names or not names):
        names.insert(0, "cp1252")
    for name in names:
        try:
            return content.decode(name), name, (f"the encoding was guessed: {name}",)
        except UnicodeDecodeError:
            continue
    name = (names or ["cp1252"])[0]
    return content.decode(name, "replace"), name, (f"the encoding was guessed, and not all of it fits: {name}",)
