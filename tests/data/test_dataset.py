"""Rows in every format, and the sentence that each kind of bad row gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localllm.data.dataset import common_format, read_dataset, split
from localllm.errors import DataError
from localllm.types import Message
from tests.weights.oracle import shared


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text(text, "utf-8")
    return path


def test_reads_the_four_formats(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": "p", "completion": "c"},
        {"instruction": "i", "input": "x", "output": "o"},
        {"instruction": "i", "input": "", "output": "o"},
        {"text": "t"},
    ]
    read = read_dataset(written(tmp_path, "\n\n".join(json.dumps(r) for r in rows)))
    assert [r.line for r in read] == [1, 3, 5, 7, 9]
    assert read[0].messages == (Message("user", "a"), Message("assistant", "b"))
    assert read[1].messages == (Message("user", "p"), Message("assistant", "c"))
    assert read[2].messages[0].content == "i\n\nx"
    assert read[3].messages[0].content == "i"
    assert (read[4].text, read[4].messages) == ("t", ())


def test_the_format_is_that_of_most_rows(tmp_path: Path) -> None:
    rows = read_dataset(written(tmp_path, '{"text": "a"}\n{"prompt": "a", "completion": "b"}\n' * 2 + '{"text": "b"}'))
    assert common_format(rows) == "text"
    assert common_format(rows[1:]) == "prompt/completion"


def test_reads_a_json_array_with_the_lines_of_its_rows(tmp_path: Path) -> None:
    text = json.dumps([{"text": "one\n"}, {"text": "two"}, {"text": "three"}], indent=1)
    assert [(r.line, r.text) for r in read_dataset(written(tmp_path, text))] == [(2, "one\n"), (5, "two"), (8, "three")]


@pytest.mark.parametrize(
    "row, problem",
    [
        ("{oops}", "line 2: not JSON"),
        ("[1]", "line 2: expected an object, found a list"),
        ("{}", "line 2: expected messages, .* found no keys"),
        ('{"quest": "x"}', 'found "quest"'),
        ('{"question": "x"}', '"answer" is missing'),
        ('{"prompt": "x"}', '"completion" is missing'),
        ('{"prompt": "x", "completion": 3}', '"completion" must be text, found a number'),
        ('{"prompt": "x", "completion": " "}', "nothing to learn"),
        ('{"text": ""}', '"text" is empty'),
        ('{"messages": "x"}', '"messages" must be a list of turns, found text'),
        ('{"messages": [{"role": "bot", "content": "x"}]}', 'message 1 needs a "role"'),
        ('{"messages": [{"role": "user", "content": null}]}', "found nothing"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "no turn of the assistant"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: str, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        read_dataset(written(tmp_path, '{"text": "fine"}\n' + row + "\n"))
    assert caught.value.line == 2
    assert caught.value.hint


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"[]", "no rows"),
        (b'[\n{"text": "a"},', "line 2: not a JSON array"),
        (b'{"text": "\xff"}', "line 1: not UTF-8"),
        (b"[" * 100_000, "not a JSON array"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read_dataset(path)
    with pytest.raises(DataError, match="no such file"):
        read_dataset(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no data files"):
        (tmp_path / "empty").mkdir()
        read_dataset(tmp_path / "empty")


def test_the_split_is_decided_by_the_seed(tmp_path: Path) -> None:
    rows = read_dataset(written(tmp_path, "\n".join(json.dumps({"text": str(i)}) for i in range(50))))
    train, held = split(rows, seed=3)
    assert (len(train), len(held)) == (45, 5)
    assert sorted(r.line for r in (*train, *held)) == list(range(1, 51))
    assert split(rows, seed=3) == (train, held)
    assert split(rows, seed=4)[1] != held
    assert len(split(rows[:2], seed=0)[1]) == 1
    with pytest.raises(DataError, match="one row"):
        split(rows[:1], seed=0)


def test_reads_real_datasets() -> None:
    folder = shared() / "instructions"
    assert len(read_dataset(folder / "wikisql" / "train.jsonl")) == 1000
    alpaca = read_dataset(folder / "instruction-1100" / "instruction-data.json")
    assert len(alpaca) == 1100
    assert alpaca[1].line > alpaca[0].line
