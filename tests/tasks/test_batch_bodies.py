"""Bodies of requests: what is read, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localllm.tasks.batch_bodies import BadBodyError, Texts, chat, texts
from localllm.types import Message, Sampling

USER = [{"role": "user", "content": "Hello"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def test_a_plain_request_is_greedy() -> None:
    asked = chat({"model": "gpt-4o", "messages": USER, "user": "ada", "metadata": {"a": "b"}, "store": True, "n": 1})
    assert asked.messages == (Message("user", "Hello"),)
    assert asked.sampling == Sampling()
    assert asked.tools == ""


def test_every_setting_reaches_the_sampling() -> None:
    asked = chat(
        {
            "messages": USER, "temperature": 1, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "repeat_penalty": 1.1,
            "presence_penalty": 0.2, "frequency_penalty": -0.3, "seed": -1, "max_completion_tokens": 9, "stop": "END",
            "logit_bias": {"42": -100, "7": 5}, "stream": False, "logprobs": None, "unknown": None,
        }
    )  # fmt: skip
    assert asked.sampling == Sampling(
        temperature=1.0, top_p=0.5, top_k=7, min_p=0.1, repeat_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=-0.3, seed=0xFFFFFFFF, max_tokens=9, stop=("END",), logit_bias=((42, -100.0), (7, 5.0)),
    )  # fmt: skip


def test_messages_may_hold_parts_and_calls() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    asked = chat(
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": parts},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            ],
            "tools": [TOOL],
        }
    )
    assert [(m.role, m.content) for m in asked.messages] == [
        ("system", "Be brief."), ("user", "ab"), ("assistant", ""), ("tool", "sunny"),
    ]  # fmt: skip
    assert json.loads(asked.messages[2].extra)["tool_calls"][0]["function"]["arguments"] == {"city": "Bern"}
    assert json.loads(asked.tools) == [TOOL]
    assert chat({"messages": USER, "tools": [TOOL], "tool_choice": "none"}).tools == ""


def test_formats_become_schemas() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wrapped = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    for given, wanted in (({"type": "text"}, None), ({"type": "json_object"}, {"type": "object"}), (wrapped, schema)):
        found = chat({"messages": USER, "response_format": given}).sampling.json_schema
        assert (json.loads(found) if found else None) == wanted


@pytest.mark.parametrize(
    "body, words",
    [
        ({"reasoning_effort": "low"}, '"reasoning_effort" is not supported'),
        ({"n": 2}, '"n" is supported as 1 only'),
        ({"n": True}, '"n" is supported'),
        ({"stream": True}, '"stream"'),
        ({"logprobs": True}, '"logprobs"'),
        ({"temperature": "hot"}, '"temperature" must be a number, found text'),
        ({"temperature": float("nan")}, '"temperature" must lie between'),
        ({"top_k": 2**40}, '"top_k" must lie between'),
        ({"max_tokens": 1.5}, '"max_tokens" must be a whole number'),
        ({"stop": [1]}, '"stop"'),
        ({"stop": "\ud800"}, "half of a character"),
        ({"logit_bias": {"the": 1}}, '"logit_bias"'),
        ({"logit_bias": {"9" * 11: 1}}, '"logit_bias" must lie'),
        ({"response_format": {"type": "xml"}}, '"response_format"'),
        ({"response_format": {"type": "json_schema"}}, '"response_format"'),
        ({"tools": [{"name": "x"}]}, '"tools"'),
        ({"tool_choice": "required"}, '"tool_choice"'),
        ({"messages": []}, '"messages" must be a list of turns'),
        ({"messages": [{"role": "robot", "content": "x"}]}, '"role"'),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "'image_url': only text can be read"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(body: dict[str, Any], words: str) -> None:
    with pytest.raises(BadBodyError) as caught:
        chat({"messages": USER} | body)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "given, inputs",
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        (["a", [1]], ("a", (1,))),
    ],
)
def test_inputs_are_texts_or_tokens(given: Any, inputs: tuple[Any, ...]) -> None:
    assert texts({"model": "m", "input": given}) == Texts(inputs, False)
    assert texts({"input": given, "encoding_format": "base64"}).base64


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": ""},
        {"input": []},
        {"input": ["a", ""]},
        {"input": [True]},
        {"input": {"a": 1}},
        {"input": "\udc00"},
        {"input": "a", "dimensions": 8},
        {"input": "a", "encoding_format": "hex"},
    ],
)
def test_other_inputs_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadBodyError):
        texts(body)
