"""What base and adapter are compared on: the person's rows, the questions in them, and what is to stay as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from localllm.data.dataset import read_dataset
from localllm.data.examples import Encoder
from localllm.engine.llama import LlamaEngine
from localllm.errors import DataError
from localllm.evaluate.general import paragraphs
from localllm.tasks.probes import probe_rows
from localllm.tasks.verify import Rows
from localllm.types import Example
from localllm.weights.architectures.base import integer
from localllm.weights.gguf import read_header
from localllm.weights.rope import depends_on_ctx, usual_ctx

ROW_TOKENS = 16384
"""Rows are spread evenly over those there are until they have so many tokens."""
MAX_QUESTIONS, ANSWER_TOKENS = 40, 4096
"""The same for questions, and for the tokens of their expected answers."""
LEAST_ROWS = 8
"""However long they are."""
ROOM = 16
"""Tokens that an answer may be longer than the longest expected one before it is cut off."""
_SMALLEST_CTX = 32
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """The last answer of a row, to be given again."""

    line: int
    prompt: tuple[int, ...]
    expected: str
    expected_tokens: int


@dataclass(frozen=True)
class Material:
    """Everything as tokens of one model."""

    kind: str
    """Where the rows come from: "held-out" or "given"."""
    available: int
    """Rows there were to choose from."""
    rows: list[Example]
    questions: list[Asked]
    general: list[Example]
    other: list[Example]
    max_tokens: int
    """Of an answer."""
    n_ctx: int
    """Tokens of context that all of it needs."""

    @property
    def passes(self) -> int:
        """Rows and questions in all, for one model."""
        return len(self.rows) + len(self.questions) + len(self.general) + len(self.other)


def given_rows(model: Path, data: Path) -> Rows:
    """Rows of a dataset as this model's tokens. Raises DataError, TemplateError, ModelError."""
    conversations = read_dataset(data)
    engine = LlamaEngine.open(model, vocab_only=True)
    try:
        encoder = Encoder(engine, engine.info.has_template, engine.vocab.eos, engine.vocab.is_end)
        return Rows("given", [example for row in conversations for example in encoder.encode(row)])
    finally:
        engine.close()


def gather(model: Path, rows: Rows) -> Material:
    """Choose rows and questions, and add what the project ships. Raises DataError when there is nothing to learn."""
    header = read_header(model)
    limit = integer(header, "context_length")
    usable = [_cut(row, limit) for row in rows.examples]
    usable = [row for row in usable if any(row.mask[1:])]
    if not usable:
        raise DataError("There is nothing in these rows to compare on.", "Give rows with answers, by --data FILE.")
    engine = LlamaEngine.open(model, vocab_only=True)
    try:
        asked = [found for row in usable if (found := question(engine, row, limit))]
        general = [_text(engine.tokenize(text, parse_special=False)[:limit]) for text in paragraphs()]
    finally:
        engine.close()
    chosen = spread(usable, ROW_TOKENS, [len(row.tokens) for row in usable])
    questions = spread(asked, ANSWER_TOKENS, [q.expected_tokens for q in asked])
    questions = questions if len(questions) <= MAX_QUESTIONS else _evenly(questions, MAX_QUESTIONS)
    max_tokens = max((q.expected_tokens for q in questions), default=0) + ROOM
    other = probe_rows(model)
    longest = max(len(row.tokens) for row in (*chosen, *general, *other))
    longest = max(_SMALLEST_CTX, longest, *(len(q.prompt) + max_tokens for q in questions))
    n_ctx = min(limit, max(longest, usual_ctx(header)) if depends_on_ctx(header) else longest)
    return Material(rows.kind, len(rows.examples), chosen, questions, general, other, max_tokens, n_ctx)


def question(engine: LlamaEngine, row: Example, limit: int) -> Asked | None:
    """The last supervised part of a row, after what precedes it; None for a text, all of which is supervised."""
    end = max(i for i, supervised in enumerate(row.mask) if supervised) + 1
    start = end
    while start and row.mask[start - 1]:
        start -= 1
    answer = row.tokens[start:end]
    if answer and engine.vocab.is_end(answer[-1]):
        answer = answer[:-1]
    if start <= 1 or not answer or end >= limit:
        return None
    return Asked(row.line, row.tokens[:start], engine.detokenize(answer), len(answer))


def spread(items: Sequence[T], budget: int, sizes: Sequence[int]) -> list[T]:
    """As many as fit the budget by their mean size, at least LEAST_ROWS of them, from all over the sequence."""
    if not items:
        return []
    return _evenly(items, max(LEAST_ROWS, budget * len(items) // max(1, sum(sizes))))


def _evenly(items: Sequence[T], most: int) -> list[T]:
    return list(items) if len(items) <= most else [items[i * len(items) // most] for i in range(most)]


def _cut(row: Example, limit: int) -> Example:
    return Example(row.tokens[:limit], row.mask[:limit], row.line)


def _text(tokens: Sequence[int]) -> Example:
    return Example(tuple(tokens), (True,) * len(tokens))
