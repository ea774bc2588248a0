"""Rows to token ids and a mask of what is learned, with the very tokens that inference will see.

A conversation is rendered with the model's chat template up to each turn of the assistant, as inference will prompt it;
what the whole conversation has after that prompt, up to the token that ends the turn, is supervised.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from localllm.errors import DataError
from localllm.types import Conversation, Example, Message

TooLong = Literal["error", "skip"]


class ChatTokenizer(Protocol):
    """What an engine offers for text; one opened with the vocabulary alone will do."""

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]: ...

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]: ...


@dataclass(frozen=True)
class Encoder:
    """Turns rows into examples for one model."""

    tokenizer: ChatTokenizer
    has_template: bool
    eos: int
    """The token that ends a text, or -1."""
    is_end: Callable[[int], bool]
    """Whether a token ends an answer."""

    def encode(self, row: Conversation) -> tuple[Example, bool]:
        """The example of a row, and whether earlier turns of the assistant had to be left out of the loss.

        Raises DataError for a conversation that a model without a chat template cannot be taught.
        """
        if row.text is not None:
            return self._text(row.text, row.line), False
        last = max(i for i, m in enumerate(row.messages) if m.role == "assistant")
        messages = row.messages[: last + 1]
        if not self.has_template:
            return self._plain_pair(messages, row.line), False
        return self._every_turn(messages, row.line) or self._last_turn(messages, row.line)

    def prompt(self, row: Conversation) -> list[int]:
        """The tokens that ask for the last answer of a row, as inference would."""
        last = max(i for i, m in enumerate(row.messages) if m.role == "assistant")
        if self.has_template:
            return self.tokenizer.encode_chat(row.messages[:last], add_generation_prompt=True)
        return self.tokenizer.tokenize(row.messages[0].content, parse_special=False)

    def _text(self, text: str, line: int) -> Example:
        tokens = self._ended(self.tokenizer.tokenize(text, parse_special=False))
        return Example(tuple(tokens), (False, *(True for _ in tokens[1:])), line)

    def _plain_pair(self, messages: Sequence[Message], line: int) -> Example:
        """Prompt and completion one after the other, for a model that only continues text."""
        if [m.role for m in messages] != ["user", "assistant"]:
            raise DataError(
                f"line {line}: this model has no chat template, so it cannot be taught a conversation.",
                'Use {"prompt", "completion"} or {"text"} rows, or a chat model.',
            )
        prompt = self.tokenizer.tokenize(messages[0].content, parse_special=False)
        answer = self.tokenizer.tokenize(messages[1].content, add_special=False, parse_special=False)
        return _supervised(prompt, self._ended(answer), line)

    def _every_turn(self, messages: Sequence[Message], line: int) -> tuple[Example, bool] | None:
        """All turns of the assistant supervised; None where the template renders a turn differently later on."""
        full = self.tokenizer.encode_chat(messages, add_generation_prompt=False)
        mask = [False] * len(full)
        for i, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt = self.tokenizer.encode_chat(messages[:i], add_generation_prompt=True)
            upto = self.tokenizer.encode_chat(messages[: i + 1], add_generation_prompt=False)
            end = self._turn_end(upto, len(prompt))
            if end is None or full[: len(prompt)] != prompt or full[:end] != upto[:end]:
                return None
            mask[len(prompt) : end] = [True] * (end - len(prompt))
        length = max(i for i, supervised in enumerate(mask) if supervised) + 1
        return Example(tuple(full[:length]), tuple(mask[:length]), line), False

    def _last_turn(self, messages: Sequence[Message], line: int) -> tuple[Example, bool]:
        """The last answer after the prompt for it, whatever the template makes of earlier ones."""
        prompt = self.tokenizer.encode_chat(messages[:-1], add_generation_prompt=True)
        full = self.tokenizer.encode_chat(messages, add_generation_prompt=False)
        end = self._turn_end(full, len(prompt))
        earlier = any(m.role == "assistant" for m in messages[:-1])
        if end is not None and full[: len(prompt)] == prompt:
            return _supervised(prompt, full[len(prompt) : end], line), earlier
        answer = self.tokenizer.tokenize(messages[-1].content, add_special=False, parse_special=False)
        closing = next((t for t in reversed(full) if self.is_end(t)), self.eos)
        return _supervised(prompt, [*answer, closing] if closing >= 0 else answer, line), earlier

    def _turn_end(self, tokens: Sequence[int], start: int) -> int | None:
        """Just after the token that ends the turn beginning at `start`; None when nothing ends it."""
        return next((i + 1 for i in range(start, len(tokens)) if self.is_end(tokens[i])), None)

    def _ended(self, tokens: list[int]) -> list[int]:
        return tokens if self.eos < 0 or tokens[-1:] == [self.eos] else [*tokens, self.eos]


def fitting(
    examples: Sequence[Example], max_length: int, too_long: TooLong, path: Path
) -> tuple[list[Example], list[int]]:
    """(examples of at most `max_length` tokens, lines of the longer ones). Raises DataError unless those may go."""
    long = [e for e in examples if len(e.tokens) > max_length]
    kept = [e for e in examples if len(e.tokens) <= max_length]
    if long and too_long == "error":
        lines = ", ".join(str(e.line) for e in long[:8]) + (" …" if len(long) > 8 else "")
        longest = max(len(e.tokens) for e in long)
        raise DataError(
            f"{len(long)} of {len(examples)} rows are longer than {max_length} tokens (lines {lines}; the longest has "
            f"{longest}).",
            f"Use --max-length {longest} to train on them whole, or --too-long skip to leave them out.",
            path=path,
        )
    if not kept:
        raise DataError(f"every row is longer than {max_length} tokens.", "Raise --max-length.", path=path)
    return kept, [e.line for e in long]


def _supervised(prompt: Sequence[int], answer: Sequence[int], line: int) -> Example:
    """The answer is learned, the prompt only read."""
    mask = (*(False for _ in prompt), *(True for _ in answer))
    return Example((*prompt, *answer), mask, line)
