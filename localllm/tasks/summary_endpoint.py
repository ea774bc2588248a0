"""Summaries by a server: its answers as an engine's events, and what has to be known of it before it is asked."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from localllm.engine.base import Failed, Finished, StepEvent, TextDelta
from localllm.errors import EngineError, GrammarError, LocalLLMError
from localllm.tasks.answerer import CHAT, Question, Reply
from localllm.tasks.endpoint_client import Client, UnreachableError
from localllm.tasks.endpoint_served import Served
from localllm.types import FinishReason, Sampling, Usage

_WAIT = 0.05  # seconds for something to happen


@dataclass(frozen=True)
class _Asked:
    prompt: str
    deadline: float | None


class EndpointWriter:
    """See `Writer`. Counting may ask the server too, and raise UnreachableError as `step` does."""

    entangled = False

    def __init__(self, client: Client, served: Served) -> None:
        self._client, self._served = client, served
        self._asked: dict[int, _Asked] = {}
        self._events: deque[StepEvent] = deque()
        self._last_id = 0

    @property
    def n_ctx(self) -> int:
        return self._served.n_ctx

    @property
    def n_slots(self) -> int:
        return self._client.endpoint.parallel

    def count(self, text: str) -> int:
        return self._served.count(text)

    def count_prompt(self, prompt: str) -> int:
        return self._served.frame + self.count(prompt)

    def check(self, sampling: Sampling) -> None:
        if sampling.json_schema is None:
            return
        reply = self._client.ask(CHAT, self._body("?", sampling) | {"max_tokens": 1})
        if reply.refusal:
            said = reply.refusal.message.rstrip(".")
            raise GrammarError(f"The schema cannot be used. {said}.", "Use a simpler schema.")

    def submit(self, prompt: str, sampling: Sampling, timeout: float | None) -> int:
        self._last_id += 1
        self._asked[self._last_id] = _Asked(prompt, None if timeout is None else time.monotonic() + timeout)
        self._client.send(Question(CHAT, self._body(prompt, sampling), str(self._last_id)))
        return self._last_id

    def step(self) -> list[StepEvent]:
        """Raises UnreachableError."""
        received = self._client.receive(_WAIT) if self._asked and not self._events else None
        while received is not None:
            self._take(int(received[0].id), received[1])
            received = self._client.receive(0)
        now = time.monotonic()
        for request_id, asked in list(self._asked.items()):
            if asked.deadline is not None and asked.deadline <= now:
                self._end(request_id, "deadline")
        events = list(self._events)
        self._events.clear()
        return events

    def cancel(self, request_id: int) -> None:
        """What is on its way comes back to nobody."""
        if request_id in self._asked:
            self._end(request_id, "cancelled")

    def _end(self, request_id: int, reason: FinishReason, usage: Usage | None = None) -> None:
        del self._asked[request_id]
        self._events.append(Finished(request_id, reason, usage or Usage(0, 0, 0)))

    def _take(self, request_id: int, reply: Reply) -> None:
        asked = self._asked.get(request_id)
        if asked is None:
            return
        try:
            text, reason = _answer(reply)
            self._check_read(asked.prompt, reply)
        except UnreachableError:
            raise
        except LocalLLMError as error:
            del self._asked[request_id]
            self._events.append(Failed(request_id, error.message, error.hint))
            return
        self._events.append(TextDelta(request_id, text, ()))
        self._end(request_id, reason, _usage(reply))

    def _check_read(self, prompt: str, reply: Reply) -> None:
        """Raises EngineError where the server shortened the prompt; it shows only if the server counts tokens."""
        read = reply.tokens[0]
        if self._served.exact and read and read < (written := self.count(prompt)):
            message = f"The server took in {read} tokens of a prompt that has {written}: it cut the text off."
            raise EngineError(message, "Give the context that it really has with --ctx.")

    def _body(self, prompt: str, sampling: Sampling) -> dict[str, Any]:
        """What is named beyond OpenAI's own fields is named only if it was asked for: some servers refuse it."""
        body: dict[str, Any] = {
            "model": self._served.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.logit_bias:
            body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
        for name, ours in _FIELDS.items():
            if (value := getattr(sampling, ours)) != getattr(_PLAIN, ours):
                body[name] = value
        if sampling.json_schema is not None:
            schema = {"name": "summary", "strict": True, "schema": _parsed(sampling.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body


_PLAIN = Sampling()
_FIELDS = {
    "top_p": "top_p",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "top_k": "top_k",
    "min_p": "min_p",
    "repeat_penalty": "repeat_penalty",  # llama-server's name for it
    "repetition_penalty": "repeat_penalty",  # vLLM's
}


def _parsed(schema: str) -> Any:
    try:
        return json.loads(schema)
    except ValueError as error:
        raise GrammarError(f"The JSON schema is not valid JSON ({error}).", "Correct the file.") from None


def _answer(reply: Reply) -> tuple[str, FinishReason]:
    """Raises EngineError for a reply without an answer."""
    if reply.refusal:
        raise EngineError(reply.refusal.message, "Run the same command again with --retry-failed.")
    try:
        choice = (reply.body or {})["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
    except (LookupError, TypeError, AttributeError):
        raise EngineError("The server's answer holds no text.", "Look whether it serves a chat model.") from None
    if reason == "content_filter":
        raise EngineError("The server's filter withheld the answer.", "Leave the document out, or use another server.")
    return text if isinstance(text, str) else "", "length" if reason == "length" else "stop"


def _usage(reply: Reply) -> Usage:
    """Seconds are known where the server says them, as llama-server does."""
    prompt, answer = reply.tokens
    timings = (reply.body or {}).get("timings")
    return Usage(prompt, 0, answer, 0.0, _seconds(timings, "prompt_ms"), _seconds(timings, "predicted_ms"))


def _seconds(timings: Any, name: str) -> float:
    value = timings.get(name) if isinstance(timings, dict) else None
    return value / 1000 if isinstance(value, int | float) else 0.0
