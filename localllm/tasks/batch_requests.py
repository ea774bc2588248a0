"""OpenAI's batch files: one request a line, and the rows that answer them.

A request line is {"custom_id", "method": "POST", "url", "body"}, a row of results {"id", "custom_id", "response",
"error"}. The id is a digest of the request and of who answers, so that a row says by itself whether it is up to date.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.data.turns import kind_of
from localllm.errors import DataError
from localllm.tasks.answerer import CHAT, EMBEDDINGS, Question, Refusal, Reply
from localllm.tasks.results import Entry

MAX_LINE = 64 << 20
"""Bytes of a line; a longer one is no request."""
_KEYS = {"id", "custom_id", "response", "error"}


@dataclass(frozen=True)
class Line:
    """A line of the input: a question, or why it is none."""

    number: int
    id: str
    custom_id: str | None
    """None for a line that names none, or one that an earlier line has."""
    question: Question | None
    complaint: str = ""

    @property
    def item(self) -> str:
        """What its row is found by."""
        return _item(self.custom_id, self.number)


def read_lines(path: Path, settings: dict[str, Any]) -> Iterator[Line]:
    """The lines that are not blank. Raises DataError where the file cannot be read."""
    first: dict[str, int] = {}
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
                if raw.strip():
                    yield _line(raw, number, settings, first)
    except OSError as error:
        what = f"cannot be read ({error.strerror})."
        raise DataError(what, "Check the path and its permissions.", path=path) from error


def row(line: Line, reply: Reply) -> dict[str, Any]:
    """The row of results: `error` is null for an answer. What a server said stands in `response` either way."""
    error: dict[str, Any] | None = None
    if reply.refusal:
        error = {"code": reply.refusal.code, "message": reply.refusal.message}
        if line.custom_id is None:
            error["line"] = line.number
    response = None
    if reply.status is not None:
        response = {"status_code": reply.status, "request_id": f"req_{line.id}", "body": reply.body}
    return {"id": f"batch_req_{line.id}", "custom_id": line.custom_id, "response": response, "error": error}


def complaint_row(line: Line) -> dict[str, Any]:
    """The row of a line that is no request."""
    return row(line, Reply(None, None, Refusal("invalid_request", f"line {line.number}: {line.complaint}")))


def entry_of(row: dict[str, Any]) -> Entry | None:
    """What a row of results is about; None for a row of another kind."""
    error, key = row.get("error"), row.get("id")
    if row.keys() != _KEYS or not isinstance(key, str) or not isinstance(error, dict | None):
        return None
    number = error.get("line", 0) if error else 0
    return Entry(_item(row["custom_id"], number), key.removeprefix("batch_req_"), error is not None)


def _item(custom_id: str | None, number: int) -> str:
    return f"line {number}" if custom_id is None else f"id {custom_id}"


def _line(raw: bytes, number: int, settings: dict[str, Any], first: dict[str, int]) -> Line:
    """`first` has the line of each custom_id so far."""
    try:
        value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        too_long = len(raw) == MAX_LINE and not raw.endswith(b"\n")
        return _no_request(raw, number, f"longer than {MAX_LINE} bytes." if too_long else f"not valid JSON ({error}).")
    if not isinstance(value, dict):
        return _no_request(raw, number, f"a request is an object, found {kind_of(value)}.")
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        return _no_request(raw, number, '"custom_id" must be text.')
    if custom_id in first:
        return _no_request(raw, number, f'"custom_id" {custom_id!r} is that of line {first[custom_id]} too.')
    first[custom_id] = number
    url, body = value.get("url"), value.get("body")
    digest = _digest([custom_id, value.get("method"), url, body, settings])
    complaint = _complaint(value.get("method"), url, body)
    question = Question(url, body, digest) if isinstance(body, dict) and isinstance(url, str) else None
    return Line(number, digest, custom_id, None if complaint else question, complaint)


def _complaint(method: Any, url: Any, body: Any) -> str:
    if method not in ("POST", None):
        return '"method" must be "POST".'
    if url not in (CHAT, EMBEDDINGS):
        return f'"url" must be {CHAT} or {EMBEDDINGS}.'
    return "" if isinstance(body, dict) else f'"body" must be an object, found {kind_of(body)}.'


def _no_request(raw: bytes, number: int, complaint: str) -> Line:
    return Line(number, hashlib.sha256(raw).hexdigest()[:32], None, None, complaint)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
