"""What each format becomes, tools included, and the sentence that each kind of bad row gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localllm.data.dataset import scan_dataset
from localllm.data.formats import read_row
from localllm.data.turns import BadRowError
from localllm.types import Message
from tests.weights.oracle import shared


def pair(question: str, answer: str) -> tuple[Message, ...]:
    return (Message("user", question), Message("assistant", answer))


@pytest.mark.parametrize(
    "row, format_, messages",
    [
        ({"prompt": "p", "completion": "c", "text": "ignored"}, "prompt/completion", pair("p", "c")),
        ({"prompt": "p", "response": "c"}, "prompt/completion", pair("p", "c")),
        ({"instruction": "i", "input": "x", "output": "o"}, "Alpaca", pair("i\n\nx", "o")),
        ({"instruction": "i", "input": None, "output": "o"}, "Alpaca", pair("i", "o")),
        ({"instruction": "i", "context": "x", "response": "o", "category": "c"}, "Alpaca", pair("i\n\nx", "o")),
        ({"question": "q", "answer": "a"}, "question/answer", pair("q", "a")),
        ({"system": "s", "question": "q", "answer": "a"}, "question/answer", (Message("system", "s"), *pair("q", "a"))),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            "ShareGPT",
            pair("q", "a"),
        ),
        (
            {"system": "s", "conversations": [{"from": "user", "value": "q"}, {"from": "Assistant", "value": "a"}]},
            "ShareGPT",
            (Message("system", "s"), *pair("q", "a")),
        ),
        (
            {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]},
            "prompt/completion",
            pair("q", "a"),
        ),
        (
            {"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": [
                {"type": "text", "text": "q"}, {"type": "text", "text": "!"}]}, {"role": "assistant", "content": "a"}]},
            "chat",
            (Message("system", "s"), *pair("q!", "a")),
        ),
    ],
)  # fmt: skip
def test_a_row_becomes_turns(row: dict[str, Any], format_: str, messages: tuple[Message, ...]) -> None:
    (read,) = read_row(row, 3)
    assert (read.format, read.messages, read.line) == (format_, messages, 3)


def test_self_instruct_has_a_conversation_for_each_instance() -> None:
    row = {"instruction": "i", "instances": [{"input": "", "output": "a"}, {"input": "x", "output": "b"}]}
    assert [read.messages for read in read_row(row, 1)] == [pair("i", "a"), pair("i\n\nx", "b")]


def test_tools_and_calls_are_kept_as_templates_read_them() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "blue"},
        {"role": "assistant", "content": "Blue."},
    ]
    (read,) = read_row({"messages": turns, "tools": [{"name": "look", "parameters": {}}]}, 1)
    assert json.loads(read.messages[1].extra)["tool_calls"][0]["function"]["arguments"] == {"at": "sky"}
    assert json.loads(read.messages[2].extra) == {"tool_call_id": "c1"}
    assert json.loads(read.tools) == [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    sharegpt = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "sky"}}'},
        {"from": "observation", "value": "blue"},
        {"from": "gpt", "value": "Blue."},
    ]
    (other,) = read_row({"conversations": sharegpt, "tools": '[{"name": "look"}]'}, 1)
    assert [m.role for m in other.messages] == [m.role for m in read.messages]
    assert json.loads(other.messages[1].extra)["tool_calls"][0]["function"]["name"] == "look"


def chat(*turns: tuple[Any, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


@pytest.mark.parametrize(
    "row, problem",
    [
        (7, "expected an object, found a number"),
        ({"foo": 1}, 'found "foo"'),
        ({"instruction": "i", "output": None}, '"output" must be text, found nothing'),
        ({"instruction": 3, "output": "o"}, '"instruction" must be text, found a number'),
        ({"question": "q", "answer": {"text": "a"}}, '"answer" must be text, found an object'),
        ({"instruction": "i", "instances": []}, '"instances" must be a list of turns, found an empty list'),
        ({"instruction": "i", "instances": [{"input": "x", "output": " "}]}, 'instance 1: "output" is empty'),
        ({"text": "\ud800"}, r'"text" holds half of a character \(\\ud800\)'),
        ({"messages": []}, "found an empty list"),
        ({"messages": ["x"]}, "message 1 must be an object, found text"),
        (chat(("user", "q"), ("bot", "a")), "message 2 needs a \"role\" .*, found 'bot'"),
        (chat(("user", "q"), ("assistant", "")), "no turn of the assistant has any text"),
        (chat(("assistant", "a"), ("user", "q")), "the assistant speaks first"),
        (chat(("system", "s"), ("assistant", "a")), "the assistant speaks first"),
        (chat(("user", [{"type": "image_url"}]), ("assistant", "a")), "a part of type 'image_url'"),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, "needs a \"from\" .*, found 'narrator'"),
        ({"conversations": [{"from": "human", "value": 3}]}, 'needs a "value" that is text, found a number'),
        ({**chat(("user", "q"), ("assistant", "a")), "tools": ["x"]}, '"tools" must be a list of objects'),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, 'needs "tool_calls" that each name a function'),
    ],
)
def test_a_bad_row_says_what_is_wrong(row: Any, problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read_row(row, 1)


@pytest.mark.parametrize(
    "path, rows, format_",
    [
        ("wikisql/train.jsonl", 1000, "text"),
        ("self-instruct/seed_tasks.jsonl", 175, "self-instruct"),
        ("instruction-1100/instruction-data.json", 1100, "Alpaca"),
    ],
)
def test_real_files_are_what_they_are(path: str, rows: int, format_: str) -> None:
    found = scan_dataset(shared() / "instructions" / path)
    assert found.formats == ((format_, rows),)
    assert not found.bad


def test_a_file_is_what_most_of_its_rows_are(tmp_path: Any) -> None:
    path = tmp_path / "d.jsonl"
    rows = [{"text": "a"}, {"question": "q", "answer": "a"}, {"question": "r", "answer": "a"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = scan_dataset(path)
    assert found.formats == (("question/answer", 2), ("text", 1))
    assert found.differing == (1,)
