"""Batch summaries: everything read, finished work kept, errors in their own rows."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localllm.engine.llama import LlamaEngine
from localllm.errors import CancelledError, EngineCrashedError, GrammarError, StorageError, UsageError
from localllm.tasks.results import Results
from localllm.tasks.summarize import DocumentDone, Done, PartDone, SummarizeRequest, summarize
from localllm.tasks.summary_journal import Journal
from localllm.tasks.summary_plan import Answer
from localllm.tasks.summary_prompts import Wish
from localllm.tasks.summary_rows import entry_of
from localllm.tasks.summary_writer import EngineWriter
from localllm.types import Sampling
from tests.tasks.side_by_side import SideBySide


def request(*paths: Path, out: Path | None, **changes: Any) -> SummarizeRequest:
    basis = SummarizeRequest(paths, out, "fake", "0" * 64, part_tokens=200, sampling=Sampling(max_tokens=80))
    return replace(basis, **changes)


def rows(path: Path, *, timed: bool = False) -> list[dict[str, Any]]:
    """Without what differs from run to run."""
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return found if timed else [{k: v for k, v in row.items() if k != "timings"} for row in found]


def run(wanted: SummarizeRequest, engine: SideBySide) -> Done:
    done = list(summarize(wanted, EngineWriter(engine)))[-1]
    assert isinstance(done, Done)
    return done


def shorten(prompt: str) -> str:
    """An answer that shows what was read: the beginning of the text."""
    return prompt.split("\n\n", 1)[-1].removesuffix("<assistant>")[:60]


@pytest.fixture
def engine() -> SideBySide:
    return SideBySide(shorten)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "short.txt").write_text("One short note.")
    (folder / "long.md").write_text("\n\n".join(f"P{i} " + "words and more " * 8 for i in range(30)))
    return folder


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Twelve notes of one to four parts, to be read in this order."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02}.txt").write_text(
            "\n\n".join(f"Note {i}.{j} " + "some words " * 12 for j in range(1 + i % 4))
        )
    return folder


def test_every_paragraph_is_in_exactly_one_part(engine: SideBySide, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = run(request(folder, out=out), engine)
    by_name = {Path(row["source"]).name: row for row in rows(out)}
    text = (folder / "long.md").read_text()
    parts = by_name["long.md"]["parts"]
    assert "".join(text[p["start"] : p["end"]] for p in parts) == text
    read = "".join(prompt for prompt in engine.asked if prompt.startswith("<user>Summarize"))
    assert all(read.count(f"P{i} ") == 1 for i in range(30)), "the model was shown each paragraph once"
    assert len(by_name["short.txt"]["parts"]) == 1
    assert by_name["short.txt"]["summary"] == by_name["short.txt"]["parts"][0]["summary"]
    assert (done.documents, done.failed) == (2, 0)


def test_summaries_are_combined_until_one_remains(engine: SideBySide, folder: Path, tmp_path: Path) -> None:
    events = list(summarize(request(folder / "long.md", out=tmp_path / "o"), EngineWriter(engine)))
    last_round = [e for e in events if isinstance(e, PartDone)][-1]
    assert (last_round.done, last_round.total) == (1, 1)
    (row,) = rows(tmp_path / "o")
    assert row["strategy"] == "map-reduce"
    assert row["levels"] == last_round.level >= 2
    assert row["summary"]
    assert row["prompt_tokens"] == sum(map(len, engine.asked))


def test_slots_are_filled_across_documents_and_rows_come_in_order(
    engine: SideBySide, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    events = list(summarize(request(many, out=out), EngineWriter(engine)))
    parts = [e.source for e in events if isinstance(e, PartDone)]
    assert parts != sorted(parts), "a later document was worked on while an earlier one was not finished"
    names = [Path(row["source"]).stem for row in rows(out)]
    assert names == [f"{i:02}" for i in range(12)]
    assert [e.row["source"] for e in events if isinstance(e, DocumentDone)] == [row["source"] for row in rows(out)]
    assert not (tmp_path / "o.journal").exists(), "nothing is left that is of no use"


def test_one_slot_and_many_give_the_same_rows(many: Path, tmp_path: Path) -> None:
    for slots in (1, 2, 9):
        run(request(many, out=tmp_path / str(slots)), SideBySide(shorten, n_slots=slots))
    assert rows(tmp_path / "1") == rows(tmp_path / "2") == rows(tmp_path / "9")


def test_a_second_run_skips_what_is_done_and_redoes_what_changed(
    engine: SideBySide, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    run(request(folder, out=out), engine)
    before = out.read_bytes()
    engine.asked.clear()
    done = run(request(folder, out=out), engine)
    assert out.read_bytes() == before
    assert engine.asked == []
    assert (done.documents, done.skipped) == (2, 2)
    (folder / "long.md").write_text("Another note.")
    run(request(folder, out=out), engine)
    assert len(engine.asked) == 1
    assert [(Path(row["source"]).name, row["characters"]) for row in rows(out)] == [("long.md", 13), ("short.txt", 15)]


def test_other_settings_replace_nothing_unasked(engine: SideBySide, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(request(folder, out=out), engine)
    before = out.read_bytes()
    for changes in ({"model_sha256": "1" * 64}, {"wish": Wish(style="bullets")}, {"part_tokens": 150}):
        with pytest.raises(UsageError, match="2 summaries that were made with other settings"):
            run(request(folder, out=out, **changes), engine)
    assert out.read_bytes() == before
    run(request(folder, out=out, model_sha256="1" * 64, redo=True), engine)
    assert [row["model_sha256"] for row in rows(out)] == ["1" * 64] * 2


def test_a_bad_file_is_an_error_in_its_own_row(engine: SideBySide, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.txt").write_bytes(b"\xff\xfe\x00")
    out = tmp_path / "out.jsonl"
    missing = tmp_path / "none.txt"
    assert run(request(folder, missing, out=out), engine).failed == 2
    errors = {Path(row["source"]).name: row["error"] for row in rows(out) if row["error"]}
    assert errors.keys() == {"bad.txt", "none.txt"}
    assert "No such file" in errors["none.txt"]
    again = run(request(folder, missing, out=out), engine)
    assert (again.skipped, again.failed, again.failed_before) == (4, 2, 2), "not tried again unasked, nor forgotten"
    missing.write_text("Here now.")
    assert run(request(folder, missing, out=out, retry_failed=True), engine).failed == 1
    assert [Path(row["source"]).name for row in rows(out)] == ["bad.txt", "long.md", "short.txt", "none.txt"]


def test_what_kills_the_engine_costs_one_document(many: Path, tmp_path: Path) -> None:
    engine = SideBySide(shorten, deadly="Note 7.1")
    done = run(request(many, out=tmp_path / "o"), engine)
    assert done.failed == 1
    errors = [row["error"] for row in rows(tmp_path / "o")]
    assert [bool(error) for error in errors] == [i == 7 for i in range(12)]
    assert "The engine died." in errors[7]
    assert sum("Note 7.1" in prompt for prompt in engine.asked) == 2, "once in company and once alone"
    engine.deadly = "\0"
    before = rows(tmp_path / "o")
    assert run(request(many, out=tmp_path / "o", retry_failed=True), engine).failed == 0
    again = rows(tmp_path / "o")
    assert [row for i, row in enumerate(again) if i != 7] == [row for i, row in enumerate(before) if i != 7]


def test_a_schema_that_kills_the_engine_is_said(folder: Path) -> None:
    class Dying(SideBySide):
        def submit(self, request: Any) -> int:
            raise EngineCrashedError("llama.cpp crashed (SIGSEGV) while it took a request in.", "Try again.")

    with pytest.raises(GrammarError, match=r"cannot compile the schema: .*SIGSEGV"):
        run(request(folder, out=None, wish=Wish(schema="{}")), Dying(shorten))


def test_a_line_of_a_hundred_thousand_tokens_is_read_to_its_end(tmp_path: Path) -> None:
    """A token is a character. One line has blanks, the other not even these."""
    lines = {
        "words.txt": "".join(f"{i:06} " for i in range(14286)),
        "run.txt": "".join(f"{i:05}" for i in range(20000)),
    }
    for name, line in lines.items():
        (tmp_path / name).write_text(line)
    engine = SideBySide(lambda prompt: "A short summary.", n_ctx=2000)
    done = run(request(*(tmp_path / name for name in lines), out=tmp_path / "o", part_tokens=1500), engine)
    assert done.failed == 0
    for row in rows(tmp_path / "o"):
        line = lines[Path(row["source"]).name]
        assert "".join(line[p["start"] : p["end"]] for p in row["parts"]) == line
        assert all(p["tokens"] <= 1500 and p["summary"] for p in row["parts"])
        read = "".join(p.split("\n\n", 1)[1].removesuffix("<assistant>") for p in engine.asked if "Summarize" in p)
        assert line.replace(" ", "") in read.replace(" ", ""), "the model was shown all of it, in order"


def test_an_engine_that_is_gone_ends_the_run(engine: SideBySide, many: Path, tmp_path: Path) -> None:
    class Gone(SideBySide):
        def submit(self, request: Any) -> int:
            raise EngineCrashedError("The engine died 4 times in a row and is not started again.", "Get another.")

    with pytest.raises(EngineCrashedError, match="not started again"):
        run(request(many, out=tmp_path / "o"), Gone(shorten))
    assert len(rows(tmp_path / "o")) <= 3


def test_stopping_keeps_rows_and_parts(engine: SideBySide, folder: Path, tmp_path: Path) -> None:
    cancel = threading.Event()
    out = tmp_path / "out.jsonl"
    answered: list[str] = []

    def until_the_long_one() -> None:
        for event in summarize(request(folder / "short.txt", folder, out=out), EngineWriter(engine), cancel):
            if isinstance(event, PartDone):
                answered.append(event.text)
                if len(answered) == 5:
                    cancel.set()

    with pytest.raises(CancelledError, match=r"1 of 2 documents are done.*run the same command"):
        until_the_long_one()
    assert [Path(row["source"]).name for row in rows(out)] == ["short.txt"]
    undisturbed = SideBySide(shorten)
    run(request(folder / "short.txt", folder, out=tmp_path / "whole"), undisturbed)
    engine.asked.clear()
    done = run(request(folder / "short.txt", folder, out=out), engine)
    assert done.reused == len(answered) - 1
    assert len(engine.asked) == len(undisturbed.asked) - len(answered)
    assert rows(out) == rows(tmp_path / "whole")


def test_stopping_is_seen_while_kept_answers_are_gone_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal parts have one answer: after the first, none of a thousand is asked for."""
    (tmp_path / "same.txt").write_text(("Always the same words. " * 6 + "\n\n") * 1000)
    engine, cancel, looked = SideBySide(shorten), threading.Event(), 0
    get = Journal.get

    def count(self: Journal, key: str) -> Answer | None:
        nonlocal looked
        looked += 1
        return get(self, key)

    monkeypatch.setattr(Journal, "get", count)
    wanted = request(tmp_path / "same.txt", out=tmp_path / "o")
    with pytest.raises(CancelledError):
        for event in summarize(wanted, EngineWriter(engine), cancel):
            if isinstance(event, PartDone):
                cancel.set()
    assert looked < 100
    done = run(wanted, engine)
    assert (done.failed, done.reused > 900) == (0, True)


def test_a_half_written_row_is_cut_off_and_done_again(engine: SideBySide, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run(request(folder, out=out), engine)
    before = rows(out)
    out.write_bytes(out.read_bytes()[:-30])
    (tmp_path / "out.jsonl.journal").write_bytes(b'{"key": "a", "te')
    run(request(folder, out=out), engine)
    assert rows(out) == before


def test_rows_of_a_table_come_and_go(engine: SideBySide, tmp_path: Path) -> None:
    table, out = tmp_path / "t.jsonl", tmp_path / "o"
    lines = [json.dumps({"text": f"Row {i} says something.", "id": f"r{i}"}) for i in range(4)]
    table.write_text("\n".join(lines))
    assert run(request(table, out=out), engine).documents == 4
    assert [row["id"] for row in rows(out)] == ["r0", "r1", "r2", "r3"]
    engine.asked.clear()
    table.write_text("\n".join([lines[0], json.dumps({"text": "Changed.", "id": "r1"}), lines[2]]))
    run(request(table, out=out), engine)
    assert len(engine.asked) == 1
    assert [(row["id"], row["characters"]) for row in rows(out)] == [("r0", 21), ("r1", 8), ("r2", 21)]


def test_markdown_and_csv_are_made_of_rows_that_are_kept(engine: SideBySide, folder: Path, tmp_path: Path) -> None:
    (folder / "bad.txt").write_bytes(b"\0\0")
    done = run(request(folder, out=tmp_path / "o.md"), engine)
    text = (tmp_path / "o.md").read_text()
    assert text.count("\n## ") == 2
    assert "*Not summarized: " in text
    assert text.endswith(f"One short note.\n\n`{folder / 'short.txt'}`\n")
    run(request(folder, out=tmp_path / "o.csv"), engine)
    assert (tmp_path / "o.csv").read_text().count("\n") >= 4
    (tmp_path / "o.md").unlink()
    again = run(request(folder, out=tmp_path / "o.md"), engine)
    assert (done.skipped, again.skipped) == (0, 3)
    assert (tmp_path / "o.md").read_text() == text


def test_an_output_in_use_is_left_alone(engine: SideBySide, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    with Results(out, entry_of), pytest.raises(StorageError, match="is being written by process"):
        run(request(folder, out=out), engine)


def test_what_cannot_work_is_said_before_anything_is_read(engine: SideBySide, folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no readable documents"):
        run(request(empty, out=tmp_path / "o"), engine)
    with pytest.raises(UsageError, match="too few to summarize"):
        run(request(folder, out=tmp_path / "o"), SideBySide(shorten, n_ctx=120))
    with pytest.raises(UsageError, match="is a folder"):
        run(request(folder, out=tmp_path), engine)
    with pytest.raises(UsageError, match="not a regular file"):
        run(request(folder, out=Path("/dev/zero")), engine)
    with pytest.raises(UsageError, match="overlap 150 is not within half"):
        run(request(folder, out=tmp_path / "o", overlap=150), engine)
    with pytest.raises(UsageError, match="would not see the text"):
        Wish(template="Tell me more.")
    with pytest.raises(GrammarError, match="cannot be used"):
        run(request(folder, out=tmp_path / "o", wish=Wish(schema="{}")), SideBySide(shorten, refuses_schemas=True))
    (tmp_path / "other").write_text("my letters\n")
    with pytest.raises(UsageError, match="no result of this command"):
        run(request(folder, out=tmp_path / "other"), engine)
    assert (tmp_path / "other").read_text() == "my letters\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "notes", "other"]


def test_the_built_in_model_summarizes_a_story(guide: LlamaEngine, shared: Path, tmp_path: Path) -> None:
    story = shared / "documents/the-verdict.txt"
    out = tmp_path / "out.jsonl"
    list(summarize(request(story, out=out, part_tokens=480), EngineWriter(guide)))
    (row,) = rows(out)
    text = story.read_text("utf-8")
    assert row["error"] is None
    assert row["summary"]
    assert "".join(text[p["start"] : p["end"]] for p in row["parts"]) == text
    assert all(p["summary"] and p["tokens"] <= 480 for p in row["parts"])
