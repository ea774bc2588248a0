"""`localllm evaluate summaries` as a child process, on rows of summarize and of batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from localllm.errors import DataError
from localllm.tasks.summary_scores import score_summaries
from tests.cli.helpers import fails, run


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


REFERENCES = (
    {"id": "bridge", "summary": "The bridge is closed.", "text": "The bridge is closed until May, says the mayor."},
    {"paper_id": "p1", "target": ["We scale losses.", "Losses scale."], "source": ["We scale.", "Losses."]},
    {"source": "notes/c.txt", "summary": "Bread is baked."},
)


def test_rows_of_a_run_find_their_references(tmp_path: Path) -> None:
    results = write(
        tmp_path / "out.jsonl",
        {"source": "docs/bridge.txt", "summary": "The bridge is closed.", "error": None},
        {"source": "table.jsonl:7", "id": "p1", "summary": "Losses scale.", "error": None},
        {"source": "/elsewhere/notes/c.txt", "summary": None, "error": "It is empty."},
        {"source": "docs/other.txt", "summary": "Nobody wrote of this."},
    )
    outcome = run("evaluate", "summaries", results, "--refs", write(tmp_path / "refs.jsonl", *REFERENCES), "--json")
    assert outcome.code == 0, outcome.err
    *items, done = outcome.events
    assert [item["document"] for item in items] == ["docs/bridge.txt", "p1"]
    assert items[1]["rouge"]["rouge2"] == 1.0
    assert items[0]["copied"] == [1.0, 1.0, 1.0, 1.0]
    assert (done["failed"], done["unmatched"], done["unanswered"]) == (1, 1, 1)
    assert done["mean"]["rouge1"] == 1.0
    plain = run("evaluate", "summaries", results, "--refs", tmp_path / "refs.jsonl")
    assert "docs/bridge.txt" in plain.out
    assert "as many first words" in plain.out
    assert "1 documents have an error" in plain.err


def test_rows_of_a_batch_and_rows_without_names_are_understood(tmp_path: Path) -> None:
    body = {"choices": [{"message": {"content": "Bread is baked."}}]}
    batch = {"id": "batch_req_1", "custom_id": "c.txt", "response": {"status_code": 200, "body": body}, "error": None}
    found = score_summaries(write(tmp_path / "out.jsonl", batch), write(tmp_path / "refs.jsonl", *REFERENCES))
    assert found.mean.rouge1 == 1.0
    meeting = {
        "general_query_list": [{"query": "Summarize.", "answer": "They agreed."}, {"answer": "No."}],
        "meeting_transcripts": [{"speaker": "A", "content": "Yes , we agreed ."}],
    }
    found = score_summaries(
        write(tmp_path / "out.jsonl", {"source": "m.jsonl:2", "summary": "They agreed."}),
        write(tmp_path / "refs.jsonl", {"id": "x", "summary": "y"}, meeting),
    )
    assert (found.mean.rouge2, found.unanswered) == (1.0, 1)
    assert found.mean.copied is not None
    assert found.mean.copied[0] == 0.5


@pytest.mark.parametrize(
    "rows, words",
    [
        ([], "no references"),
        ([{"id": "a"}], "line 1: holds no summary"),
        ([{"id": "a", "summary": "..."}], "holds no summary"),
        (["a"], "not an object"),
        ([{"id": "other", "summary": "x"}], "no summary in it has a reference"),
    ],
)
def test_bad_references_are_said(tmp_path: Path, rows: list[Any], words: str) -> None:
    results = write(tmp_path / "out.jsonl", {"source": "a", "summary": "x"})
    with pytest.raises(DataError, match=words):
        score_summaries(results, write(tmp_path / "refs.jsonl", *rows))


def test_what_cannot_work_is_one_clear_line(tmp_path: Path) -> None:
    fails(run("evaluate", "summaries", tmp_path / "x.jsonl"), 2, "localllm evaluate summaries RESULTS --refs FILE")
    fails(run("evaluate", "guide", "--refs", tmp_path / "x.jsonl"), 2, "no way to evaluate")
    fails(run("evaluate", "summaries", tmp_path / "x.jsonl", "--refs", tmp_path / "y.jsonl"), 1, "cannot be read")
