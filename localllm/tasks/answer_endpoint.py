"""Answers from a server that speaks OpenAI's API: vLLM, llama-server, or any other.

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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from localllm.errors import EngineError, UsageError
from localllm.tasks.answerer import CHAT, Question, Refusal, Reply

ATTEMPTS = 6
LONGEST_WAIT = 120.0
"""Seconds before an attempt at most, also where a server asks for more."""
MAX_ANSWER = 64 << 20
"""Bytes of an answer."""
_POLL = 0.1  # seconds between looks at `cancel`
_PATIENCE = 3
"""Requests in a row that found no server: then there is none."""


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


class EndpointAnswerer:
    """See `Answerer`."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.name = endpoint.base
        self.settings: dict[str, Any] = {"endpoint": endpoint.base, "endpoint_model": endpoint.model}
        self._opener = urllib.request.build_opener(_NoRedirect())
        self._stop = threading.Event()

    def answer(
        self, questions: Iterable[Question], cancel: threading.Event | None = None
    ) -> Iterator[tuple[Question, Reply]]:
        """Raises EngineError where the server cannot be reached or refuses the key."""
        waiting, more, under_way, missed = iter(questions), True, 0, 0
        stop = self._stop = threading.Event()
        todo: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[Question, Reply]] = queue.SimpleQueue()
        for _ in range(self._endpoint.parallel):
            # Daemons: one that waits for a slow server does not keep the program from ending.
            threading.Thread(target=self._work, args=(todo, done, stop), daemon=True).start()
        try:
            while (more or under_way) and not (cancel is not None and cancel.is_set()):
                while more and under_way < self._endpoint.parallel:
                    question = next(waiting, None)
                    if question is None:
                        more = False
                    else:
                        under_way += 1
                        todo.put(question)
                try:
                    question, reply = done.get(timeout=_POLL)
                except queue.Empty:
                    continue
                under_way -= 1
                missed = missed + 1 if _missed(reply) else 0
                self._give_up(reply, missed)
                yield question, reply
        finally:
            stop.set()
            for _ in range(self._endpoint.parallel):
                todo.put(None)

    def close(self) -> None:
        self._stop.set()

    def _give_up(self, reply: Reply, missed: int) -> None:
        if reply.status in (401, 403):
            message = f"{self.name} refuses the key ({reply.status})."
            raise EngineError(message, "Put the right one into the variable LOCALLLM_API_KEY.")
        if missed >= _PATIENCE and reply.refusal:
            hint = "Start the server, then run the same command again: it goes on, with --retry-failed for what failed."
            raise EngineError(f"{self.name} does not answer: {reply.refusal.message}", hint)

    def _work(
        self,
        todo: queue.SimpleQueue[Question | None],
        done: queue.SimpleQueue[tuple[Question, Reply]],
        stop: threading.Event,
    ) -> None:
        while (question := todo.get()) is not None and not stop.is_set():
            done.put((question, self._ask(question, stop)))

    def _ask(self, question: Question, stop: threading.Event) -> Reply:
        body = dict(question.body)
        if self._endpoint.model:
            body["model"] = self._endpoint.model
        if body.get("stream"):
            return Reply(None, None, Refusal("invalid_request", '"stream" is supported as false only.'))
        data = json.dumps(body).encode()
        wait = self._endpoint.first_wait
        for number in range(1, ATTEMPTS + 1):
            attempt = self._attempt(question.url, data)
            if not attempt.again or number == ATTEMPTS:
                break
            pause = attempt.wait if attempt.wait is not None else wait * random.uniform(0.5, 1)
            if stop.wait(min(pause, LONGEST_WAIT)):
                break
            wait *= 2
        return attempt.reply

    def _attempt(self, url: str, data: bytes) -> _Attempt:
        headers = {"Content-Type": "application/json"}
        if self._endpoint.key:
            headers["Authorization"] = f"Bearer {self._endpoint.key}"
        request = urllib.request.Request(self._endpoint.base + url, data, headers)
        try:
            with self._opener.open(request, timeout=self._endpoint.timeout) as response:
                return _read(url, response.status, response.headers, self._without_key(response.read(MAX_ANSWER + 1)))
        except urllib.error.HTTPError as error:
            with error:
                return _read(url, error.code, error.headers, self._without_key(_rest(error)))
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "reason", None) or error
            slow = isinstance(why, TimeoutError)
            what = f"no answer within {self._endpoint.timeout:g} s" if slow else f"{why or type(error).__name__}"
            return _Attempt(Reply(None, None, Refusal("timeout" if slow else "connection_error", f"{what}.")), True)

    def _without_key(self, data: bytes) -> bytes:
        """What a server sends back is written to files and shown: never the key."""
        return data.replace(self._endpoint.key.encode(), b"***") if self._endpoint.key else data


def _missed(reply: Reply) -> bool:
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
    if body is None or not isinstance(body.get("choices" if url == CHAT else "data"), list):
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
