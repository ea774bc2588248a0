"""Exact match before and after: rows of --test answered greedily through llama.cpp, without and with the adapter."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from localllm.engine.base import Engine, Failed, Finished, Request, TextDelta, stream_many
from localllm.engine.llama import LlamaEngine
from localllm.errors import CancelledError, EngineError
from localllm.evaluate.exact import Answered, exact_match
from localllm.tasks.preparing import Prepared
from localllm.types import Sampling

_ROOM = 16
"""Tokens that an answer may be longer than the longest expected one before it is cut off, and so wrong."""


@dataclass(frozen=True)
class AnswerProgress:
    """`done` of `total` answers, those of the base and those with the adapter together."""

    done: int
    total: int


@dataclass(frozen=True)
class ExactMatch:
    """Shares between 0 and 1; None when there were no rows."""

    rows: int
    before: float | None
    after: float | None


def exact_match_of(
    prepared: Prepared, adapter: Path, cancel: threading.Event | None
) -> Generator[AnswerProgress, None, ExactMatch]:
    """Answer every question twice and return the shares of exact answers. Raises CancelledError, EngineError."""
    questions = prepared.questions
    if not questions:
        return ExactMatch(0, None, None)
    longest = max(q.answer_tokens for q in questions) + _ROOM
    n_ctx = max(len(q.prompt) for q in questions) + longest
    engine = LlamaEngine.open(prepared.model.path, n_ctx=n_ctx, n_slots=None)
    shares = []
    try:
        for turn, adapters in enumerate(([], [(adapter, 1.0)])):
            engine.set_adapters(adapters)
            texts = {}
            for number, text, _ in answer_all(engine, [q.prompt for q in questions], longest, cancel):
                texts[number] = text
                yield AnswerProgress(turn * len(questions) + len(texts), 2 * len(questions))
            if cancel is not None and cancel.is_set():
                raise CancelledError("Stopped; nothing was kept.")
            expected = [[m.content for m in q.row.messages if m.role == "assistant"][-1] for q in questions]
            answered = [Answered(q.row.line, expected[i], texts[i]) for i, q in enumerate(questions)]
            shares.append(exact_match(answered))
    finally:
        engine.close()
    return ExactMatch(len(questions), shares[0], shares[1])


def answer_all(
    engine: Engine, prompts: Sequence[tuple[int, ...]], max_tokens: int, cancel: threading.Event | None
) -> Iterator[tuple[int, str, int]]:
    """Greedy answers, as many side by side as the engine has slots: (number of the prompt, text, its tokens) as each is
    finished; fewer than there are prompts when it was cancelled. Raises EngineError where one fails.
    """
    requests = (Request(prompt, Sampling(max_tokens=max_tokens)) for prompt in prompts)
    pieces: dict[int, list[TextDelta]] = {}
    for number, event in stream_many(engine, requests, cancel):
        if isinstance(event, TextDelta):
            pieces.setdefault(number, []).append(event)
        elif isinstance(event, Failed):
            raise EngineError(event.message, event.hint)
        elif isinstance(event, Finished) and event.reason != "cancelled":
            yield number, "".join(e.text for e in pieces.pop(number, ())), event.usage.output_tokens
