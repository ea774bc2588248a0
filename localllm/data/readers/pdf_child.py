"""The child that reads a PDF: its bytes come in, one JSON object goes out; the argument is the seconds for a page.

Either {"problem", "hint"}, or {"title", "pages": [text], "failed": [[page from 1, why]]}.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

_MEMORY = 6 << 30  # bytes of address space
_MAX_TEXT = 256 << 20  # characters of all pages
_EXTRA = "pip install 'localllm[documents]'"


class _TooLongError(BaseException):
    """A page took too long. No Exception, so that the library does not catch it."""


def main() -> None:
    content = sys.stdin.buffer.read()
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _stop)
    # what a library prints must not get between parent and child
    out, sys.stdout = sys.stdout, sys.stderr
    out.write(json.dumps(_read(content, int(sys.argv[1]))))
    out.flush()


def _stop(signal_number: int, frame: FrameType | None) -> None:
    raise _TooLongError


@contextlib.contextmanager
def _bounded(seconds: int) -> Iterator[None]:
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _read(content: bytes, seconds: int) -> dict[str, Any]:
    try:
        import pypdf
        from pypdf.errors import DependencyError
    except ImportError:
        return {"problem": "reading PDF needs pypdf, which is not installed.", "hint": "pip install pypdf"}
    try:
        with _bounded(seconds):
            reader = pypdf.PdfReader(io.BytesIO(content))
            if reader.is_encrypted and not reader.decrypt(""):
                return {"problem": "is encrypted with a password.", "hint": "Save it without a password first."}
            count = len(reader.pages)
            title = _title(reader)
    except DependencyError:
        return {"problem": "is encrypted with AES, and reading that needs cryptography.", "hint": _EXTRA}
    except _TooLongError:
        return {"problem": "is a damaged PDF: its list of pages does not end.", "hint": "Print it to a new PDF."}
    except Exception as error:  # a damaged file can make the library raise anything
        return {"problem": f"is a damaged PDF ({_why(error)}).", "hint": "Fetch it again, or print it to a new PDF."}
    if not count:
        return {"problem": "is a PDF without pages.", "hint": "Leave it out."}
    return {"title": title, **_pages(reader, count, seconds)}


def _pages(reader: Any, count: int, seconds: int) -> dict[str, Any]:
    pages: list[str] = []
    failed: list[tuple[int, str]] = []
    room = _MAX_TEXT
    parent = os.getppid()
    for number in range(1, count + 1):
        if os.getppid() != parent:
            sys.exit(1)  # nobody is left to read the answer
        text = ""
        try:
            with _bounded(seconds):
                text = reader.pages[number - 1].extract_text()
        except _TooLongError:
            failed.append((number, f"it took more than {seconds} s"))
        except Exception as error:  # as above
            failed.append((number, _why(error)))
        room -= len(text)
        if room < 0:
            return {"problem": f"holds more than {_MAX_TEXT >> 20} million characters.", "hint": "Split it."}
        pages.append(text)
    return {"pages": pages, "failed": failed}


def _title(reader: Any) -> str | None:
    try:
        return " ".join(str(reader.metadata.title or "").split()) or None
    except Exception:  # a title is not worth a document
        return None


def _why(error: Exception) -> str:
    return " ".join(f"{error}".split())[:120] or type(error).__name__


if __name__ == "__main__":
    main()
