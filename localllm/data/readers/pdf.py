"""PDF files, read in a child process: a page that never ends, or memory without end, costs that file and no more."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from typing import Any

from localllm import children
from localllm.data.readers.base import Extract
from localllm.errors import CancelledError, DataError

MODULE = "localllm.data.readers.pdf_child"
PAGE_SECONDS = 60  # the child gives up on a page after this
FILE_SECONDS = 1800.0
_POLL = 0.2  # seconds between looks at `cancel`
_SHOWN = 5  # pages that a warning names


def read(content: bytes, cancel: threading.Event | None = None) -> Extract:
    """The text of all pages, an empty line between two.

    Raises DataError when it cannot be had, saying why, and CancelledError soon after `cancel` is set.
    """
    result = _result(content, cancel)
    if problem := result.get("problem"):
        raise DataError(problem, result.get("hint", ""))
    pages, failed = result["pages"], result["failed"]
    if pages and len(failed) == len(pages):
        raise DataError(f"is a damaged PDF: {failed[0][1]}.", "Print it to a new PDF, and give that.")
    text = "\n\n".join(page.strip() for page in pages if page.strip())
    if not text:
        message = f"holds no text on its {len(pages)} page{'s' * (len(pages) != 1)}: scanned pages need OCR first."
        raise DataError(message, "Run an OCR program such as ocrmypdf on it, and give its result.")
    return Extract(text, result["title"], warnings=_warnings(pages, failed))


def _warnings(pages: list[str], failed: list[list[Any]]) -> tuple[str, ...]:
    warnings = [f"page {number} is left out: {why}" for number, why in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        warnings.append(f"{len(failed) - _SHOWN} more pages are left out")
    if empty := sum(not page.strip() for page in pages) - len(failed):
        warnings.append(f"{empty} of {len(pages)} pages hold no text; scanned pages need OCR first")
    return tuple(warnings)


def _result(content: bytes, cancel: threading.Event | None) -> dict[str, Any]:
    """What the child says. Raises DataError when it was killed, crashed, or took too long."""
    child = children.start(MODULE, str(PAGE_SECONDS), stderr=subprocess.DEVNULL, text=False)
    try:
        result: dict[str, Any] = json.loads(_answer(child, content, cancel))
    except ValueError:
        how = children.signal_name(child.returncode) or f"status {child.returncode}"
        message = f"cannot be read: the reader ended with {how}, as it does when memory runs out."
        raise DataError(message, "Print it to a new PDF, and give that.") from None
    finally:
        children.end(child, grace=0.5)
    return result


def _answer(child: subprocess.Popen[bytes], content: bytes, cancel: threading.Event | None) -> bytes:
    """All that the child writes, once it has ended."""
    deadline = time.monotonic() + FILE_SECONDS
    given: bytes | None = content
    while time.monotonic() < deadline:
        if cancel is not None and cancel.is_set():
            raise CancelledError("Stopped.")
        try:
            return child.communicate(given, timeout=_POLL)[0]
        except subprocess.TimeoutExpired:
            given = None  # it is still being handed over
    message = f"reading it took more than {FILE_SECONDS / 60:.0f} minutes."
    raise DataError(message, "Split it into smaller files.")
