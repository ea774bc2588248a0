"""What `bench batch` asks of every program: the same prompts, cut from one text, and answers of the same length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localllm.engine.base import Engine
from localllm.engine.llama import LlamaEngine
from localllm.errors import DataError, UsageError
from localllm.jsonl import read
from localllm.types import Message

WorkName = Literal["documents", "instruction", "chat", "lookup"]
WORK: tuple[WorkName, ...] = ("documents", "instruction", "chat", "lookup")
SUMMARIZE = "Summarize the following text in one sentence.\n\n"
INSTRUCTION_TOKENS = 400
"""Of the instruction that all documents of that work share; each of them is then half as long."""
CHAT_TOKENS = 128
"""Of the one prompt of a chat, and of its answer."""
_CELLS = 256  # contexts are rounded up to a multiple of this, here as in llama.cpp


@dataclass(frozen=True)
class Work:
    """Prompts of one kind. Tokens that would end an answer are barred, so that every answer has `max_tokens`."""

    name: WorkName
    prompts: tuple[str, ...]
    tokens: tuple[int, ...]
    """Of each prompt, the chat template's included."""
    max_tokens: int
    barred: tuple[int, ...]

    @property
    def n_ctx(self) -> int:
        """Tokens of context that the longest of them takes with its answer."""
        return -(-(max(self.tokens) + self.max_tokens + 8) // _CELLS) * _CELLS

    @property
    def unit(self) -> str:
        """What is counted, of the prompts' or of the answers'."""
        return "tokens/s" if self.name in ("chat", "lookup") else "documents/min"


@dataclass(frozen=True)
class Sizes:
    """How much there is to do."""

    documents: int = 24
    document_tokens: int = 600
    max_tokens: int = 48

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if min(self.documents, self.max_tokens) < 1 or self.document_tokens < 3:
            raise UsageError("There must be at least 1 document of 3 tokens, and 1 token of an answer.")


def make_work(path: Path, names: Sequence[WorkName], text: Path, sizes: Sizes, prompts: Path | None) -> list[Work]:
    """The work of these names for a model; `text` is cut into documents, `prompts` has a row for each of "lookup".

    Raises ModelError, TemplateError, UsageError, and DataError where the text is too short.
    """
    engine = LlamaEngine.open(path, vocab_only=True)
    try:
        barred = tuple(token for token in range(engine.vocab.size) if engine.vocab.is_end(token))
        made = []
        for name in names:
            texts = _prompts(engine, name, text, sizes, prompts)
            counts = tuple(len(engine.encode_chat([Message("user", one)])) for one in texts)
            most = CHAT_TOKENS if name == "chat" else sizes.max_tokens
            made.append(Work(name, tuple(texts), counts, most, barred))
        return made
    finally:
        engine.close()


def _prompts(engine: Engine, name: WorkName, text: Path, sizes: Sizes, prompts: Path | None) -> list[str]:
    if name == "lookup":
        return _rows(prompts)[: sizes.documents]
    if name == "documents":
        return [SUMMARIZE + part for part in _cut(engine, text, [sizes.document_tokens] * sizes.documents)]
    if name == "chat":
        return _cut(engine, text, [CHAT_TOKENS])
    instruction, *parts = _cut(engine, text, [INSTRUCTION_TOKENS] + [sizes.document_tokens // 3] * sizes.documents)
    return [f"{instruction}\n\n{part}" for part in parts]


def _cut(engine: Engine, path: Path, sizes: Sequence[int]) -> list[str]:
    """Parts of a text one after the other, of so many tokens each."""
    try:
        tokens = engine.tokenize(path.read_text("utf-8"), add_special=False, parse_special=False)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}).", "Name a text file.") from error
    if len(tokens) < sum(sizes):
        message = f"has {len(tokens)} tokens, and {sum(sizes)} are needed."
        raise DataError(message, "Name a longer text, or take fewer --documents.", path=path)
    parts, at = [], 0
    for size in sizes:
        parts.append(engine.detokenize(tokens[at : at + size]))
        at += size
    return parts


def _rows(path: Path | None) -> list[str]:
    """The field "text" of each row. Raises UsageError, DataError."""
    if path is None:
        raise UsageError("The work lookup needs prompts.", 'Give --prompts FILE, rows of {"text": ...}.')
    texts = []
    for line, row in read(path):
        text = row.get("text") if isinstance(row, dict) else None
        if not isinstance(text, str) or not text:
            raise DataError('there is no "text".', 'Write one {"text": ...} a line.', path=path, line=line)
        texts.append(text)
    if not texts:
        raise DataError("has no prompts.", 'Write one {"text": ...} a line.', path=path)
    return texts
