"""What is supervised: the assistant's tokens and the one that ends the turn, as inference will see them."""

from __future__ import annotations

import json

import pytest

from localllm.errors import DataError
from localllm.types import Conversation, Message
from tests.data.fakes import END, Letters, encoder, learned, spelled

CHAT = (Message("user", "q"), Message("assistant", "one"), Message("user", "r"), Message("assistant", "two"))
CALL = Message("assistant", "", json.dumps({"tool_calls": [{"function": {"name": "look", "arguments": {}}}]}))


def test_every_turn_of_the_assistant_is_learned_with_its_end() -> None:
    (example,) = encoder().encode(Conversation(CHAT, None, 7))
    assert learned(example) == "one>two>"
    assert example.tokens[-1] == END
    assert example.line == 7
    prompt = Letters().encode_chat(CHAT[:3])
    assert list(example.tokens[: len(prompt)]) == prompt


def test_turns_after_the_last_answer_are_not_read() -> None:
    (example,) = encoder().encode(Conversation((*CHAT, Message("user", "bye")), None, 1))
    assert learned(example) == "one>two>"
    assert example.tokens[-1] == END


def test_a_template_that_hides_earlier_answers_makes_an_example_of_each() -> None:
    first, second = encoder(forgetful=True).encode(Conversation(CHAT, None, 1))
    assert [learned(first), learned(second)] == ["one>", "two>"]
    assert spelled(second.tokens) == "^<u:q>\n<a:>\n<u:r>\n<a:two>"


def test_the_last_turn_alone_or_everything_can_be_learned() -> None:
    for forgetful in (False, True):
        (last,) = encoder(forgetful=forgetful, train_on="last").encode(Conversation(CHAT, None, 1))
        assert learned(last) == "two>"
        (everything,) = encoder(forgetful=forgetful, train_on="all").encode(Conversation(CHAT, None, 1))
        assert everything.tokens == last.tokens
        assert everything.mask == (False, *(True for _ in last.tokens[1:]))


def test_plain_text_and_pairs_end_with_the_end_token() -> None:
    (text,) = encoder().encode(Conversation((), "abc", 1))
    assert text.tokens == (0, 97, 98, 99, END)
    assert text.mask == (False, True, True, True, True)
    (part,) = encoder().encode(Conversation((), "abc", 1, continues=True))
    assert part.tokens == (0, 97, 98, 99)
    (pair,) = encoder(template=False).encode(Conversation(CHAT[:2], None, 1))
    assert learned(pair) == "one>"
    assert pair.tokens[:2] == (0, ord("q"))
    with pytest.raises(DataError, match="line 4: this model has no chat template"):
        encoder(template=False).encode(Conversation(CHAT, None, 4))


def test_calls_of_tools_are_learned_as_the_template_writes_them() -> None:
    row = Conversation((CHAT[0], CALL, Message("tool", "42"), CHAT[1]), None, 3, tools='[{"name": "look"}]')
    (example,) = encoder().encode(row)
    assert learned(example) == "[{'function': {'name': 'look', 'arguments': {}}}]>one>"
    assert spelled(example.tokens).startswith('^{[{"name": "look"}]}<u:q>')


def test_tools_that_the_template_would_drop_are_refused() -> None:
    for messages, tools, what in (((CHAT[0], CALL), "", "calls of tools"), (CHAT, "[1]", "the tools of a conv")):
        with pytest.raises(DataError, match=f"line 3: this model's chat template does not write {what}"):
            encoder(tools=False).encode(Conversation(messages, None, 3, tools=tools))
