"""`localllm summarize` as a child process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.helpers import fails, run
from tests.tasks.summary_server import serving
from tests.tasks.test_answer_endpoint import KEY

NOTE = "The bakery on Mill Street closes in May. Its owner, Ada Brandt, retires after forty years."


def test_rows_are_written_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text(NOTE)
    (tmp_path / "notes/b.md").write_text(f"# News\n\n{NOTE}")
    out = tmp_path / "out.jsonl"
    first = run("summarize", "notes", "--out", out, "--json", cwd=tmp_path)
    assert first.code == 0
    kinds = [event["event"] for event in first.events]
    assert kinds[0] == "started"
    assert kinds.count("item") == 2
    done = first.events[-1]
    assert done["event"] == "done"
    assert {"seconds", "tokens", "tokens_per_second", "peak_rss_mb"} <= done.keys()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(row["summary"] and not row["error"] for row in rows)
    before = out.read_bytes()
    second = run("summarize", "notes", "--out", out, cwd=tmp_path)
    assert second.code == 0
    assert "0 documents" in second.err
    assert "2 already done" in second.err
    assert out.read_bytes() == before


def test_a_bad_document_is_a_row_and_exit_code_3(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text(NOTE)
    (tmp_path / "bad.txt").write_bytes(b"\x00\x01\xff")
    out = tmp_path / "out.jsonl"
    outcome = run("summarize", tmp_path / "good.txt", tmp_path / "bad.txt", "--out", out)
    assert outcome.code == 3
    assert "Traceback" not in outcome.err
    errors = [json.loads(line)["error"] for line in out.read_text().splitlines()]
    assert [bool(error) for error in errors] == [False, True]


def test_without_out_the_summary_is_printed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(NOTE)
    outcome = run("summarize", tmp_path / "a.txt")
    assert outcome.code == 0
    assert outcome.out == "The bakery on Mill Street closes in May.\n"
    piped = run("summarize", "-", "--quiet", stdin=NOTE)
    assert (piped.out, piped.err) == (outcome.out, "")
    table = run("summarize", tmp_path / "a.txt", "--format", "csv", "--quiet")
    assert table.out.splitlines()[0].startswith("source,id,title,summary,error,")
    assert len(table.out.splitlines()) == 2


def test_a_schema_makes_every_summary_json_and_a_cut_one_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(NOTE)
    schema = {"type": "object", "properties": {"topic": {"enum": ["trade", "sports"]}}, "required": ["topic"]}
    (tmp_path / "s.json").write_text(json.dumps(schema))
    options = ["--schema", "s.json", "--format", "jsonl", "--quiet"]
    outcome = run("summarize", "a.txt", *options, cwd=tmp_path)
    assert outcome.code == 0
    (row,) = outcome.events
    assert row["summary"] in ({"topic": "trade"}, {"topic": "sports"})
    cut = run("summarize", "a.txt", *options, "--max-tokens", "2", cwd=tmp_path)
    assert cut.code == 3
    assert "cut off after" in cut.events[0]["error"]
    assert cut.events[0]["summary"] is None


def test_what_cannot_work_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(NOTE)
    fails(run("summarize", tmp_path / "a.txt", "--out", tmp_path), 2, "is a folder")
    fails(run("summarize", tmp_path / "a.txt", "--ctx", "64", "--quiet"), 2, "too few to summarize")
    (tmp_path / "bad").write_text("Tell me.")
    fails(run("summarize", tmp_path / "a.txt", "--template", tmp_path / "bad"), 2, "no {text}", "Write {text}")
    fails(run("summarize", tmp_path / "a.txt", "--schema", tmp_path / "bad"), 1, "schema is not valid JSON")
    fails(run("summarize", tmp_path / "a.txt", "--slots", "0"), 2, "--slots must be above 0")
    (tmp_path / "empty").mkdir()
    fails(run("summarize", tmp_path / "empty"), 2, "nothing to summarize")


def test_a_server_may_write_the_summaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (tmp_path / "a.txt").write_text(f"{NOTE}\n\n" * 20)
    out = tmp_path / "out.jsonl"
    with serving(lambda prompt: prompt[40:90]) as server:
        command = ("summarize", tmp_path / "a.txt", "--out", out, "--endpoint", server.url)
        first = run(*command)
        assert (first.code, first.out) == (0, "")
        assert "answers with chars, in a context of 600 tokens" in first.err
        assert KEY not in first.err + out.read_text()
        before = out.read_bytes()
        assert "1 already done" in run(*command).err
        assert out.read_bytes() == before
        fails(run(*command, "--ctx", "900"), 2, "--ctx 900 is not possible")
        server.kind = "plain"
        fails(run(*command), 2, "does not say how long its context is", "--ctx N")
        server.n_ctx = 6000  # a token of the built-in model is several of its
        again = run(*command, "--ctx", "600", "--redo", "--tokenizer", "guide", "--quiet")
        assert (again.code, again.err) == (0, "")
        warned = run(*command, "--ctx", "600", "--redo")
        assert "every byte is taken for one" in warned.err
        fails(run(*command, "--model", "guide"), 2, "--endpoint-model")
        fails(run(*command, "--fast"), 2, "--fast is for a model on this machine")
        fails(run("summarize", tmp_path / "a.txt", "--tokenizer", "guide"), 2, "--tokenizer needs --endpoint")
