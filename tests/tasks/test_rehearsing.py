"""Rows of other data among those that are taught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localllm.errors import UsageError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.preparing import FinetuneRequest, prepare
from localllm.tasks.rehearsing import Rehearsal, chosen, parse


def test_a_share_is_a_share_of_all() -> None:
    rows = list(range(1000))
    picked = chosen(rows, 0.1, 90, seed=0)
    assert len(picked) == 10  # of 100 in all
    assert len(set(picked)) == 10
    assert picked == chosen(rows, 0.1, 90, seed=0)
    assert picked != chosen(rows, 0.1, 90, seed=1)
    assert chosen(rows[:5], 0.5, 90, seed=0) == rows[:5]
    assert len(chosen(rows, 0.001, 10, seed=0)) == 1


def test_a_file_and_its_share(tmp_path: Path) -> None:
    assert parse("other.jsonl") == Rehearsal(Path("other.jsonl"), 0.1)
    assert parse("other.jsonl:0.25") == Rehearsal(Path("other.jsonl"), 0.25)
    odd = tmp_path / "a:0.5"
    odd.write_text("")
    assert parse(str(odd)) == Rehearsal(odd, 0.1)
    for wrong in ("other.jsonl:2", "other.jsonl:0", "other.jsonl:much"):
        with pytest.raises(UsageError, match="not a share"):
            parse(wrong)


def test_rehearsed_rows_are_trained_on_and_not_validated(home: Home, tmp_path: Path) -> None:
    def dataset(name: str, word: str, n: int) -> Path:
        rows = [{"prompt": f"{word} {i}?", "completion": f"{word} {i * 7}."} for i in range(n)]
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)) + "\n")
        return tmp_path / name

    data, other = dataset("a.jsonl", "Apples", 40), dataset("b.jsonl", "Pears", 100)
    registry = Registry(home)
    plain = prepare(registry, FinetuneRequest(data=data, name="x", model="guide"))
    mixed = prepare(registry, FinetuneRequest(data=data, name="x", model="guide", rehearse=Rehearsal(other, 0.2)))
    assert mixed.held_out == plain.held_out
    assert mixed.train[: len(plain.train)] == plain.train
    assert len(mixed.train) - len(plain.train) == round(0.2 * len(plain.train) / 0.8)
    few = FinetuneRequest(data=data, name="x", model="guide", rehearse=Rehearsal(dataset("c.jsonl", "Figs", 2), 0.5))
    assert any("only 2 rows to rehearse" in warning for warning in prepare(registry, few).warnings)
