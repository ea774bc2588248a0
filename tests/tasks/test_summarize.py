"""Batch summaries: everything read, finished work kept, errors in their own rows."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localllm.engine.fake import FakeEngine
from localllm.engine.llama import LlamaEngine
from localllm.errors import CancelledError, EngineError, StorageError, UsageError
from localllm.tasks.summarize import Done, PartDone, SummarizeRequest, summarize


def request(*paths: Path, out: Path, **changes: Any) -> SummarizeRequest:
    return replace(SummarizeRequest(paths, out, "fake", "0" * 64, part_tokens=200), **changes)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def shorten(prompt: str) -> str:
    """An answer that shows what was read: the beginning of the text."""
    return prompt.split("\n\n", 1)[1].removesuffix("<assistant>")[:60]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(script=(shorten,), n_ctx=600)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "short.txt").write_text("One short note.")
    (folder / "long.md").write_text("\n\n".join(f"P{i} " + "words and more " * 8 for i in range(30)))
    return folder


def test_every_paragraph_is_in_exactly_one_part(engine: FakeEngine, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    events = list(summarize(request(folder, out=out), engine))
    by_name = {Path(row["source"]).name: row for row in rows(out)}
    text = (folder / "long.md").read_text()
    parts = by_name["long.md"]["parts"]
    assert "".join(text[p["start"] : p["end"]] for p in parts) == text
    read = "".join(prompt for prompt in engine.prompts if prompt.startswith("<user>Summarize"))
    assert all(read.count(f"P{i} ") == 1 for i in range(30)), "the model was shown each paragraph once"
    assert len(by_name["short.txt"]["parts"]) == 1
    assert by_name["short.txt"]["summary"] == by_name["short.txt"]["parts"][0]["summary"]
    assert isinstance(events[-1], Done)
    assert events[-1].failed == 0


def test_summaries_are_combined_until_one_remains(engine: FakeEngine, folder: Path, tmp_path: Path) -> None:
    events = list(summarize(request(folder / "long.md", out=tmp_path / "o"), engine))
    last_round = [e for e in events if isinstance(e, PartDone)][-1]
    assert (last_round.done, last_round.total) == (1, 1)
    (row,) = rows(tmp_path / "o")
    assert row["levels"] == last_round.level >= 2
    assert row["summary"]


def test_a_second_run_skips_what_is_done_and_redoes_what_changed(
    engine: FakeEngine, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    list(summarize(request(folder, out=out), engine))
    before = out.read_bytes()
    engine.prompts.clear()
    done = list(summarize(request(folder, out=out), engine))[-1]
    assert out.read_bytes() == before
    assert engine.prompts == []
    assert isinstance(done, Done)
    assert (done.documents, done.skipped) == (2, 2)
    (folder / "short.txt").write_text("Another note.")
    list(summarize(request(folder, out=out), engine))
    assert [Path(row["source"]).name for row in rows(out)] == ["long.md", "short.txt", "short.txt"]
    list(summarize(request(folder, out=out, model_sha256="1" * 64), engine))
    assert len(rows(out)) == 5, "another model makes other summaries"


def test_a_bad_file_is_an_error_in_its_own_row(engine: FakeEngine, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.txt").write_bytes(b"\xff\xfe\x00")
    out = tmp_path / "out.jsonl"
    missing = tmp_path / "none.txt"
    done = list(summarize(request(folder, missing, out=out), engine))[-1]
    errors = {Path(row["source"]).name: row["error"] for row in rows(out) if row["error"]}
    assert errors.keys() == {"bad.txt", "none.txt"}
    assert "No such file" in errors["none.txt"]
    assert isinstance(done, Done)
    assert done.failed == 2
    again = list(summarize(request(folder, missing, out=out), engine))[-1]
    assert isinstance(again, Done)
    assert (again.skipped, again.failed) == (4, 2), "failures are not tried again unasked, nor forgotten"
    missing.write_text("Here now.")
    retried = list(summarize(request(folder, missing, out=out, retry_failed=True), engine))[-1]
    assert isinstance(retried, Done)
    assert retried.failed == 1


def test_an_engine_that_fails_costs_one_document(folder: Path, tmp_path: Path) -> None:
    engine = FakeEngine(script=(EngineError("it broke."), "fine"), n_ctx=600)
    list(summarize(request(folder, out=tmp_path / "o"), engine))
    assert [bool(row["error"]) for row in rows(tmp_path / "o")] == [True, False]


def test_stopping_keeps_finished_documents(engine: FakeEngine, folder: Path, tmp_path: Path) -> None:
    cancel = threading.Event()
    out = tmp_path / "out.jsonl"

    def until_the_long_one() -> None:
        for event in summarize(request(folder / "short.txt", folder, out=out), engine, cancel):
            if isinstance(event, PartDone) and event.source.endswith("long.md"):
                cancel.set()

    with pytest.raises(CancelledError, match="Finished documents are kept"):
        until_the_long_one()
    assert [Path(row["source"]).name for row in rows(out)] == ["short.txt"]
    list(summarize(request(folder / "short.txt", folder, out=out), engine))
    assert [Path(row["source"]).name for row in rows(out)] == ["short.txt", "long.md"]


def test_a_half_written_row_is_cut_off_and_done_again(engine: FakeEngine, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    list(summarize(request(folder, out=out), engine))
    whole = out.read_bytes()
    out.write_bytes(whole[:-30])
    list(summarize(request(folder, out=out), engine))
    assert [{**row, "seconds": 0} for row in rows(out)] == [
        {**json.loads(line), "seconds": 0} for line in whole.splitlines()
    ]


def test_what_cannot_work_is_said_before_anything_is_read(engine: FakeEngine, folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no readable documents"):
        list(summarize(request(empty, out=tmp_path / "o"), engine))
    with pytest.raises(UsageError, match="too few to summarize"):
        list(summarize(request(folder, out=tmp_path / "o"), FakeEngine(n_ctx=120)))
    with pytest.raises(StorageError, match="is a folder"):
        list(summarize(request(folder, out=tmp_path), engine))
    with pytest.raises(StorageError, match="not a regular file"):
        list(summarize(request(folder, out=Path("/dev/zero")), engine))
    (tmp_path / "other").write_text("my letters\n")
    with pytest.raises(UsageError, match="not a file of summaries"):
        list(summarize(request(folder, out=tmp_path / "other"), engine))
    assert (tmp_path / "other").read_text() == "my letters\n"


def test_the_built_in_model_summarizes_a_story(guide: LlamaEngine, shared: Path, tmp_path: Path) -> None:
    story = shared / "documents/the-verdict.txt"
    out = tmp_path / "out.jsonl"
    list(summarize(request(story, out=out, part_tokens=480), guide))
    (row,) = rows(out)
    text = story.read_text("utf-8")
    assert row["error"] is None
    assert row["summary"]
    assert "".join(text[p["start"] : p["end"]] for p in row["parts"]) == text
    assert all(p["summary"] and p["tokens"] <= 480 for p in row["parts"])
