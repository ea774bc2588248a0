"""A connection to a server that speaks OpenAI's API: vLLM, llama-server, or any other.

Requests are sent as they stand, several at once. What a server may get over by itself (too many requests, an error of
its own, a lost connection) is tried again; what it refuses is not.
"""

from __future__ import annotations

import http.client
import json
import queue
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from localllm.errors import EngineError, UsageError
from localllm.tasks.answerer import CHAT, EMBEDDINGS, Question, Refusal, Reply

ATTEMPTS = 6
LONGEST_WAIT = 120.0
"""Seconds before an attempt at most, also where a server asks for more."""
MAX_ANSWER = 64 << 20
"""Bytes of an answer."""
_PATIENCE = 3
"""Requests in a row that found no server: then there is none."""
_HELD_BY = {CHAT: "choices", EMBEDDINGS: "data"}
"""The list without which an answer is none."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and how it is asked."""

    url: str
    """With or without /v1 at its end."""
    model: str | None = None
    """The name that the server knows its model by; None sends what each request says."""
    key: str = field(default="", repr=False)
    parallel: int = 8
    timeout: float = 600.0
    """Seconds without a byte after which an attempt has failed."""
    first_wait: float = 0.5
    """Seconds before the second attempt; each further wait is twice as long."""

    def __post_init__(self) -> None:
        """Raises UsageError for what is no address."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(f"--endpoint {self.url} is no address.", "For example http://localhost:8080/v1.")
        if parts.username or parts.password:
            message = "--endpoint holds a password."
            raise UsageError(message, "Put the key into the variable LOCALLLM_API_KEY instead.")

    @property
    def base(self) -> str:
        return self.url.rstrip("/").removesuffix("/v1")


class UnreachableError(EngineError):
    """There is no server, or it refuses the key: no further question can be answered."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another server is not given the key, nor the request."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class _Attempt:
    reply: Reply
    again: bool = False
    wait: float | None = None
    """Seconds that the server asks to wait."""


class Client:
    """Asks one server. Questions are sent and their replies received by one thread; the waiting is done by others."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._opener = urllib.request.build_opener(_NoRedirect())
        self._stop = threading.Event()
        self._todo: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Question, Reply]] = queue.SimpleQueue()
        self._started = False
        self._missed = 0

    def send(self, question: Question) -> None:
        """Have a question asked as soon as fewer than `endpoint.parallel` others are on their way."""
        if not self._started:
            self._started = True
            for _ in range(self.endpoint.parallel):
                # Daemons: one that waits for a slow server does not keep the program from ending.
                threading.Thread(target=self._work, daemon=True).start()
        self._todo.put(question)

    def receive(self, seconds: float) -> tuple[Question, Reply] | None:
        """A question that was sent and its reply; None when none comes within so many seconds.

        Raises UnreachableError.
        """
        try:
            question, reply = self._done.get(timeout=seconds)
        except queue.Empty:
            return None
        self._missed = self._missed + 1 if missed(reply) else 0
        self._give_up(reply, self._missed)
        return question, reply

    def ask(self, url: str, body: dict[str, Any] | None = None) -> Reply:
        """Ask and wait for the reply; without a body it is a GET. Raises UnreachableError."""
        reply = self._ask(Question(url, body or {}, ""), get=body is None)
        self._give_up(reply, _PATIENCE if missed(reply) else 0)
        return reply

    def close(self) -> None:
        """Send nothing more; what is on its way is dropped. Safe to call twice."""
        self._stop.set()
        for _ in range(self.endpoint.parallel):
            self._todo.put(None)

    def _give_up(self, reply: Reply, missed: int) -> None:
        if reply.status in (401, 403):
            message = f"{self.endpoint.base} refuses the key ({reply.status})."
            raise UnreachableError(message, "Put the right one into the variable LOCALLLM_API_KEY.")
        if missed >= _PATIENCE and reply.refusal:
            hint = "Start the server, then run the same command again: it goes on, with --retry-failed for what failed."
            raise UnreachableError(f"{self.endpoint.base} does not answer: {reply.refusal.message}", hint)

    def _work(self) -> None:
        while (question := self._todo.get()) is not None and not self._stop.is_set():
            self._done.put((question, self._ask(question)))

    def _ask(self, question: Question, *, get: bool = False) -> Reply:
        body = dict(question.body)
        if self.endpoint.model:
            body["model"] = self.endpoint.model
        if body.get("stream"):
            return Reply(None, None, Refusal("invalid_request", '"stream" is supported as false only.'))
        data = None if get else json.dumps(body).encode()
        wait = self.endpoint.first_wait
        for number in range(1, ATTEMPTS + 1):
            attempt = self._attempt(question.url, data)
            if not attempt.again or number == ATTEMPTS:
                break
            pause = attempt.wait if attempt.wait is not None else wait * random.uniform(0.5, 1)
            if self._stop.wait(min(pause, LONGEST_WAIT)):
                break
            wait *= 2
        return attempt.reply

    def _attempt(self, url: str, data: bytes | None) -> _Attempt:
        headers = {"Content-Type": "application/json"}
        if self.endpoint.key:
            headers["Authorization"] = f"Bearer {self.endpoint.key}"
        request = urllib.request.Request(self.endpoint.base + url, data, headers)
        try:
            with self._opener.open(request, timeout=self.endpoint.timeout) as response:
                return _read(url, response.status, response.headers, self._without_key(response.read(MAX_ANSWER + 1)))
        except urllib.error.HTTPError as error:
            with error:
                return _read(url, error.code, error.headers, self._without_key(_rest(error)))
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            slow = isinstance(why, TimeoutError)
            what = f"no answer within {self.endpoint.timeout:g} s" if slow else f"{why or type(error).__name__}"
            return _Attempt(Reply(None, None, Refusal("timeout" if slow else "connection_error", f"{what}.")), True)

    def _without_key(self, data: bytes) -> bytes:
        """What a server sends back is written to files and shown: never the key."""
        return data.replace(self.endpoint.key.encode(), b"***") if self.endpoint.key else data


def missed(reply: Reply) -> bool:
    """Whether the server could not be reached."""
    return reply.refusal is not None and reply.refusal.code == "connection_error"


def _rest(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read(MAX_ANSWER + 1)
    except (OSError, http.client.HTTPException):
        return b""


def _read(url: str, status: int, headers: Message, data: bytes) -> _Attempt:
    """What a response says."""
    try:
        body = json.loads(data) if len(data) <= MAX_ANSWER else None
    except (ValueError, RecursionError):
        body = None
    body = body if isinstance(body, dict) else None
    if status != 200:
        again = status in (408, 409, 425, 429) or (status >= 500 and status != 501)
        reply = Reply(status, body, Refusal(f"http_{status}", _complaint(status, body)))
        return _Attempt(reply, again, _asked_to_wait(headers))
    if body is None or (url in _HELD_BY and not isinstance(body.get(_HELD_BY[url]), list)):
        return _Attempt(Reply(status, body, Refusal("bad_answer", "The server's answer is none of OpenAI's.")), True)
    return _Attempt(Reply(status, body))


def _complaint(status: int, body: dict[str, Any] | None) -> str:
    """What a server says of an error, in the places where servers say it."""
    error = (body or {}).get("error", (body or {}).get("message"))
    text = error.get("message") if isinstance(error, dict) else error
    return f"The server said {status}{f': {text[:500]}' if isinstance(text, str) and text else '.'}"


def _asked_to_wait(headers: Message) -> float | None:
    """The seconds of Retry-After, which may be a number or a date."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
