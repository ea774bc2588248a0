"""Rows as the model will see them: token by token, with what is learned."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localllm.data.dataset import read_dataset
from localllm.data.examples import Encoder, TrainOn
from localllm.engine.llama import LlamaEngine
from localllm.engine.vocab import Vocab
from localllm.errors import DataError, UsageError
from localllm.store.registry import Registry
from localllm.types import Example


@dataclass(frozen=True)
class Piece:
    """One token."""

    id: int
    text: str
    """Nothing for the first bytes of a character that goes on in the next token."""
    learned: bool
    control: bool
    """Written out for a person; it is no text of the row."""


@dataclass(frozen=True)
class ShownRow:
    """One example of a row."""

    line: int
    format: str
    pieces: tuple[Piece, ...]

    @property
    def learned(self) -> int:
        """Tokens that count in the loss."""
        return sum(piece.learned for piece in self.pieces)


def show_rows(
    registry: Registry, data: Path, model: str, count: int = 3, line: int | None = None, train_on: TrainOn = "assistant"
) -> Iterator[ShownRow]:
    """The first rows, or those from `line` on. Raises DataError, ModelError, TemplateError, UsageError."""
    if count < 1:
        raise UsageError(f"-n must be 1 or more, not {count}.")
    rows = [row for row in read_dataset(data) if line is None or row.line >= line][:count]
    if not rows:
        raise DataError(f"there is no row at line {line} or after it.", path=data)
    engine = LlamaEngine.open(registry.model(model).path, vocab_only=True)
    try:
        encoder = Encoder(engine, engine.info.has_template, engine.vocab.eos, engine.vocab.is_end, train_on)
        for row in rows:
            for example in encoder.encode(row):
                yield ShownRow(row.line, row.format, tuple(_pieces(engine.vocab, example)))
    finally:
        engine.close()


def _pieces(vocab: Vocab, example: Example) -> Iterator[Piece]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token, learned in zip(example.tokens, example.mask, strict=True):
        plain, written = vocab.piece(token), vocab.piece(token, special=True)
        control = not plain and bool(written)
        text = written.decode("utf-8", "replace") if control else decoder.decode(plain)
        yield Piece(token, text, learned, control)
