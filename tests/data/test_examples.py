"""What is supervised: the assistant's tokens and the one that ends the turn, as inference will see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from localllm.data.examples import Encoder, fitting
from localllm.errors import DataError
from localllm.types import Conversation, Example, Message

END = 1


class Letters:
    """A tokenizer of one token a character; `<` opens a turn, `>` ends one. `forgetful` hides earlier answers."""

    def __init__(self, forgetful: bool = False) -> None:
        self.forgetful = forgetful

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return ([0] if add_special else []) + [END if c == ">" and parse_special else ord(c) for c in text]

    def encode_chat(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
        text = ""
        for i, m in enumerate(messages):
            hidden = self.forgetful and m.role == "assistant" and i < len(messages) - 1
            text += f"<{m.role[0]}:{'' if hidden else m.content}>\n"
        return self.tokenize(text + ("<a:" if add_generation_prompt else ""))


def encoder(template: bool = True, forgetful: bool = False) -> Encoder:
    return Encoder(Letters(forgetful), template, END, lambda token: token == END)


def learned(example: Example) -> str:
    return "".join(">" if t == END else chr(t) for t, m in zip(example.tokens, example.mask, strict=True) if m)


CHAT = (Message("user", "q"), Message("assistant", "one"), Message("user", "r"), Message("assistant", "two"))


def test_every_turn_of_the_assistant_is_learned_with_its_end() -> None:
    example, left_out = encoder().encode(Conversation(CHAT, None, 7))
    assert learned(example) == "one>two>"
    assert example.tokens[-1] == END
    assert example.line == 7
    assert not left_out
    prompt = Letters().encode_chat(CHAT[:3])
    assert list(example.tokens[: len(prompt)]) == prompt


def test_turns_after_the_last_answer_are_not_read() -> None:
    example, _ = encoder().encode(Conversation((*CHAT, Message("user", "bye")), None, 1))
    assert learned(example) == "one>two>"
    assert example.tokens[-1] == END


def test_a_template_that_hides_earlier_answers_leaves_the_last_one() -> None:
    example, left_out = encoder(forgetful=True).encode(Conversation(CHAT, None, 1))
    assert learned(example) == "two>"
    assert left_out


def test_plain_text_and_pairs_end_with_the_end_token() -> None:
    text, _ = encoder().encode(Conversation((), "abc", 1))
    assert text.tokens == (0, 97, 98, 99, END)
    assert text.mask == (False, True, True, True, True)
    pair, _ = encoder(template=False).encode(Conversation(CHAT[:2], None, 1))
    assert learned(pair) == "one>"
    assert pair.tokens[:2] == (0, ord("q"))
    with pytest.raises(DataError, match="line 4: this model has no chat template"):
        encoder(template=False).encode(Conversation(CHAT, None, 4))


def test_rows_that_are_too_long_are_counted_and_named() -> None:
    rows = [Example((1,) * n, (True,) * n, line) for line, n in enumerate((5, 50, 7, 60), start=1)]
    with pytest.raises(
        DataError, match=r"2 of 4 rows are longer than 10 tokens \(lines 2, 4; the longest has 60\)"
    ) as e:
        fitting(rows, 10, "error", Path("d.jsonl"))
    assert "--max-length 60" in e.value.hint
    assert "--too-long skip" in e.value.hint
    kept, skipped = fitting(rows, 10, "skip", Path("d.jsonl"))
    assert [r.line for r in kept] == [1, 3]
    assert skipped == [2, 4]
    with pytest.raises(DataError, match="every row"):
        fitting(rows, 3, "skip", Path("d.jsonl"))
