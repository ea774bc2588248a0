"""Exact match before and after: rows of --test answered greedily through llama.cpp, without and with the adapter."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from localllm.engine.base import Engine, Request, TextDelta, stream
from localllm.engine.llama import LlamaEngine
from localllm.errors import CancelledError
from localllm.evaluate.exact import Answered, exact_match
from localllm.tasks.preparing import Prepared, Question
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
    engine = LlamaEngine.open(prepared.model.path, n_ctx=n_ctx)
    shares = []
    try:
        for turn, adapters in enumerate(([], [(adapter, 1.0)])):
            engine.set_adapters(adapters)
            answered = []
            for number, question in enumerate(questions, start=1):
                answered.append(_answer(engine, question, longest, cancel))
                yield AnswerProgress(turn * len(questions) + number, 2 * len(questions))
            shares.append(exact_match(answered))
    finally:
        engine.close()
    return ExactMatch(len(questions), shares[0], shares[1])


def _answer(engine: Engine, question: Question, max_tokens: int, cancel: threading.Event | None) -> Answered:
    if cancel is not None and cancel.is_set():
        raise CancelledError("Stopped; nothing was kept.")
    request = Request(question.prompt, Sampling(max_tokens=max_tokens))
    text = "".join(e.text for e in stream(engine, request, cancel) if isinstance(e, TextDelta))
    expected = [m.content for m in question.row.messages if m.role == "assistant"][-1]
    return Answered(question.row.line, expected, text)
