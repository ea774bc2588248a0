"""Rows to token ids and a mask of what is learned, with the very tokens that inference will see.

A conversation is rendered with the model's chat template up to each turn of the assistant, as inference will prompt it;
what the whole conversation has after that prompt, up to the token that ends the turn, is supervised. Where a template
writes earlier answers differently later on, as those do that drop earlier reasoning, a conversation becomes an example
for each answer: what precedes it is then what inference would send, and no answer is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from localllm.errors import DataError, TemplateError
from localllm.types import Conversation, Example, Message

TrainOn = Literal["assistant", "last", "all"]
"""What is learned: every turn of the assistant, the last one alone, or every token of the row."""


class ChatTokenizer(Protocol):
    """What an engine offers for text; one opened with the vocabulary alone will do."""

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]: ...

    def encode_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: str = ""
    ) -> list[int]: ...


@dataclass(frozen=True)
class Encoder:
    """Turns rows into examples for one model."""

    tokenizer: ChatTokenizer
    has_template: bool
    eos: int
    """The token that ends a text, or -1."""
    is_end: Callable[[int], bool]
    """Whether a token ends an answer."""
    train_on: TrainOn = "assistant"

    def encode(self, row: Conversation) -> list[Example]:
        """The examples of a row, nearly always one.

        Raises DataError for a conversation that a model without a chat template cannot be taught, or with tools that
        its template does not write; TemplateError, with the line, where the template refuses the conversation.
        """
        if row.text is not None:
            return [self._text(row)]
        last = max(i for i, m in enumerate(row.messages) if m.role == "assistant")
        messages = row.messages[: last + 1]
        if not self.has_template:
            return [self._plain_pair(messages, row.line)]
        try:
            self._check_tools(row)
            examples = self._chat(replace(row, messages=messages))
        except TemplateError as error:
            raise TemplateError(f"line {row.line}: {error.message}", error.hint) from error
        return [_everything(e) for e in examples[-1:]] if self.train_on == "all" else examples

    def prompt(self, row: Conversation) -> list[int]:
        """The tokens that ask for the last answer of a row, as inference would."""
        last = max(i for i, m in enumerate(row.messages) if m.role == "assistant")
        if self.has_template:
            return self.tokenizer.encode_chat(row.messages[:last], add_generation_prompt=True, tools=row.tools)
        return self.tokenizer.tokenize(row.messages[0].content, parse_special=False)

    def _chat(self, row: Conversation) -> list[Example]:
        answers = [i for i, m in enumerate(row.messages) if m.role == "assistant"]
        if self.train_on != "assistant":
            return [self._one_answer(row, answers[-1])]
        whole = self._every_turn(row, answers)
        return [whole] if whole else [self._one_answer(row, i) for i in answers]

    def _text(self, row: Conversation) -> Example:
        tokens = self.tokenizer.tokenize(row.text or "", parse_special=False)
        return _everything(Example(tuple(tokens if row.continues else self._ended(tokens)), (), row.line))

    def _plain_pair(self, messages: Sequence[Message], line: int) -> Example:
        """Prompt and completion one after the other, for a model that only continues text."""
        if [m.role for m in messages] != ["user", "assistant"]:
            raise DataError(
                f"line {line}: this model has no chat template, so it cannot be taught a conversation.",
                'Use {"prompt", "completion"} or {"text"} rows, or a chat model.',
            )
        prompt = self.tokenizer.tokenize(messages[0].content, parse_special=False)
        answer = self.tokenizer.tokenize(messages[1].content, add_special=False, parse_special=False)
        example = _supervised(prompt, self._ended(answer), line)
        return _everything(example) if self.train_on == "all" else example

    def _every_turn(self, row: Conversation, answers: Sequence[int]) -> Example | None:
        """All turns of the assistant supervised; None where the template renders a turn differently later on."""
        full = self._render(row, len(row.messages))
        mask = [False] * len(full)
        for i in answers:
            prompt = self._render(row, i, ask=True)
            upto = full if i == answers[-1] else self._render(row, i + 1)
            end = self._turn_end(upto, len(prompt))
            if end is None or full[: len(prompt)] != prompt or full[:end] != upto[:end]:
                return None
            mask[len(prompt) : end] = [True] * (end - len(prompt))
        length = max(i for i, supervised in enumerate(mask) if supervised) + 1
        return Example(tuple(full[:length]), tuple(mask[:length]), row.line)

    def _one_answer(self, row: Conversation, i: int) -> Example:
        """The answer that is message `i` after the prompt for it, whatever the template makes of earlier ones."""
        prompt, full = self._render(row, i, ask=True), self._render(row, i + 1)
        end = self._turn_end(full, len(prompt))
        if end is not None and full[: len(prompt)] == prompt:
            return _supervised(prompt, full[len(prompt) : end], row.line)
        if "tool_calls" in row.messages[i].extra:
            answer = self._call(row, i, full)
        else:
            answer = self.tokenizer.tokenize(row.messages[i].content, add_special=False, parse_special=False)
        closing = next((t for t in reversed(full) if self.is_end(t)), self.eos)
        ended = closing < 0 or (bool(answer) and self.is_end(answer[-1]))
        return _supervised(prompt, answer if ended else [*answer, closing], row.line)

    def _call(self, row: Conversation, i: int, full: Sequence[int]) -> Sequence[int]:
        """What the template makes of a call of tools: all that is not there when the same turn says something else."""
        other = replace(row, messages=(*row.messages[:i], Message("assistant", "0")))
        said = self._render(other, i + 1)
        start = next((k for k, (a, b) in enumerate(zip(full, said, strict=False)) if a != b), len(full))
        return full[start : self._turn_end(full, start)]

    def _check_tools(self, row: Conversation) -> None:
        """Raises DataError where the template silently leaves out the tools of a row or their calls."""
        bare = tuple(m if "tool_calls" not in m.extra else replace(m, extra="") for m in row.messages)
        for there, without, what in (
            (bare != row.messages, replace(row, messages=bare), "calls of tools"),
            (bool(row.tools), replace(row, tools=""), "the tools of a conversation"),
        ):
            if there and self._same(row, without):
                raise DataError(
                    f"line {row.line}: this model's chat template does not write {what}.",
                    "Take these rows out, or train a model whose template knows tools.",
                )

    def _same(self, row: Conversation, other: Conversation) -> bool:
        """Whether two conversations are written alike; one that the template refuses is like no other."""
        written = self._render(row, len(row.messages))
        try:
            return written == self._render(other, len(other.messages))
        except TemplateError:
            return False

    def _render(self, row: Conversation, count: int, *, ask: bool = False) -> list[int]:
        """The first `count` messages; `ask` adds what asks for an answer."""
        return self.tokenizer.encode_chat(row.messages[:count], add_generation_prompt=ask, tools=row.tools)

    def _turn_end(self, tokens: Sequence[int], start: int) -> int | None:
        """Just after the token that ends the turn beginning at `start`; None when nothing ends it."""
        return next((i + 1 for i in range(start, len(tokens)) if self.is_end(tokens[i])), None)

    def _ended(self, tokens: list[int]) -> list[int]:
        return tokens if self.eos < 0 or tokens[-1:] == [self.eos] else [*tokens, self.eos]


def _supervised(prompt: Sequence[int], answer: Sequence[int], line: int) -> Example:
    """The answer is learned, the prompt only read."""
    mask = (*(False for _ in prompt), *(True for _ in answer))
    return Example((*prompt, *answer), mask, line)


def _everything(example: Example) -> Example:
    """Every token learned but the first, before which there is nothing to predict it from."""
    return replace(example, mask=tuple(i > 0 for i in range(len(example.tokens))))
