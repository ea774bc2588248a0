"""The report on a dataset, and its rows as tokens, with the vocabulary alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from localllm.engine.llama import LlamaEngine
from localllm.errors import DataError, ModelNotFoundError, UsageError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.data_report import CheckRequest, DataReport, check_data
from localllm.tasks.data_rows import show_rows
from tests.weights.oracle import shared


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Home(tmp_path / "home"))


@pytest.fixture
def check(tmp_path: Path, registry: Registry) -> Any:
    def run(rows: list[Any] | Path, **options: Any) -> DataReport:
        return check_data(registry, CheckRequest(written(tmp_path, rows), "guide", **options))

    return run


def written(tmp_path: Path, rows: list[Any] | Path, name: str = "rows.jsonl") -> Path:
    if isinstance(rows, Path):
        return rows
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(n: int) -> list[dict[str, str]]:
    return [{"prompt": f"What is {i}?", "completion": f"It is {i}."} for i in range(n)]


def test_the_report_of_a_real_file(check: Any) -> None:
    report = check(shared() / "instructions" / "instruction-1100" / "instruction-data.json")
    assert (report.kind, report.format, report.rows, report.unusable) == ("a JSON array", "Alpaca", 1100, ())
    assert [finding.kind for finding in report.findings] == ["near-repeated", "contradiction"]
    assert report.lengths.tokens == 53579
    assert report.lengths.total["max"] == 111
    assert 0 < report.lengths.learned < report.lengths.tokens
    assert report.verdict == "Usable, with 2 things to look at."
    assert report.limit == 2048


def test_no_weights_are_loaded(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = LlamaEngine.open
    monkeypatch.setattr(LlamaEngine, "open", lambda *a, **k: opened.append(k) or real(*a, **k))
    assert check(pairs(3)).verdict == "Usable: nothing was found wrong with it."
    assert opened == [{"vocab_only": True}]


def test_rows_that_cannot_be_used_are_grouped_with_all_their_lines(check: Any) -> None:
    rows = [*pairs(3), {"text": 1}, {"foo": 1}, {"text": 2}]
    report = check(rows)
    first, second = report.unusable
    assert (first.lines, first.message) == ((4, 6), '"text" must be text, found a number.')
    assert second.lines == (5,)
    assert report.verdict.startswith("NOT usable: 3 lines")
    assert report.rows == 3
    nothing = check([{"foo": 1}])
    assert (nothing.rows, nothing.lengths, nothing.format) == (0, None, "")


def test_what_the_model_refuses_is_unusable_too(check: Any, tmp_path: Path, registry: Registry) -> None:
    call = {"function": {"name": "look", "arguments": {}}}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    report = check([*pairs(2), {"messages": turns}])
    assert [f.lines for f in report.unusable] == [(3,)]
    assert "chat template does not write calls of tools" in report.unusable[0].message
    assert report.rows == 2
    stories = str(shared() / "models" / "stories260K" / "stories260K.gguf")  # has no template
    rows = written(tmp_path, [*pairs(2), {"messages": [*turns[:1], {"role": "assistant", "content": "a"}] * 2}])
    report = check_data(registry, CheckRequest(rows, stories))
    assert [(f.lines, "no chat template" in f.message) for f in report.unusable] == [((3,), True)]


def test_long_rows_and_control_tokens_are_found(check: Any) -> None:
    rows = [*pairs(4), {"text": "word " * 300}, {"text": "<|im_start|>user"}]
    rows += [{"prompt": "end with <|im_end|>", "completion": "x"}]
    report = check(rows, max_length=100)
    found = {finding.kind + str(finding.lines): finding.message for finding in report.findings}
    assert "too-long(5,)" in found
    assert "--too-long split" in found["too-long(5,)"]
    assert "as plain letters" in found["control(6,)"]
    assert "takes them for the template's own" in found["control(7,)"]
    assert not [f for f in check(rows[:4], max_length=100).findings if f.kind in ("control", "too-long")]


def test_validation_rows_are_compared(check: Any, tmp_path: Path) -> None:
    valid = written(tmp_path, [*pairs(2)[1:], {"text": "other"}, {"foo": 1}], "valid.jsonl")
    report = check(pairs(9), valid=valid)
    assert report.valid_rows == 2
    assert [(f.kind, f.lines) for f in report.findings] == [("overlap", (1,))]
    assert report.unusable[0].message.startswith(f"of {valid}: expected messages")
    folder = tmp_path / "set"
    folder.mkdir()
    written(folder, pairs(5), "train.jsonl")
    written(folder, pairs(1), "validation.jsonl")
    assert [f.kind for f in check(folder).findings] == ["overlap"]


def test_mistakes_are_errors(check: Any, tmp_path: Path, registry: Registry) -> None:
    for options, kind in (({"max_length": 0}, UsageError), ({"valid": tmp_path / "none.jsonl"}, DataError)):
        with pytest.raises(kind):
            check(pairs(2), **options)
    with pytest.raises(ModelNotFoundError):
        check_data(registry, CheckRequest(written(tmp_path, pairs(2)), "no-such-model"))


def test_shown_tokens_are_those_that_are_trained_on(tmp_path: Path, registry: Registry) -> None:
    rows = [{"prompt": "Größe 🙂?", "completion": "日本"}, {"text": "plain"}]
    chat, text = show_rows(registry, written(tmp_path, rows), "guide", 5)
    assert (chat.line, chat.format, text.format) == (1, "prompt/completion", "text")
    assert "".join(p.text for p in chat.pieces) == (
        "<|im_start|>user\nGröße 🙂?<|im_end|>\n<|im_start|>assistant\n日本<|im_end|>"
    )
    assert "".join(p.text for p in chat.pieces if p.learned) == "日本<|im_end|>"
    assert [p.text for p in chat.pieces if p.control] == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>"]
    assert chat.learned == sum(p.learned for p in chat.pieces) < len(chat.pieces)
    (everything,) = show_rows(registry, written(tmp_path, rows), "guide", 1, train_on="all")
    assert [p.learned for p in everything.pieces] == [False] + [True] * (len(everything.pieces) - 1)
    (second,) = show_rows(registry, written(tmp_path, rows), "guide", 1, line=2)
    assert second.line == 2
    with pytest.raises(DataError, match="no row at line 3"):
        next(show_rows(registry, written(tmp_path, rows), "guide", 1, line=3))
    with pytest.raises(UsageError, match="-n must be"):
        next(show_rows(registry, written(tmp_path, rows), "guide", 0))
