"""`localllm summarize` as a child process."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from pypdf import PdfWriter

from localllm.tasks.results import Results
from localllm.tasks.summary_rows import entry_of
from tests.cli.helpers import Outcome, fails, run
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
    (tmp_path / "binary.txt").write_bytes(b"\x00\x01\xff")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "damaged.pdf").write_bytes(b"%PDF-1.7\nno more")
    for name, password in (("blank.pdf", ""), ("locked.pdf", "secret")):
        writer = PdfWriter()
        writer.add_blank_page(200, 200)
        if password:
            writer.encrypt(password, algorithm="RC4-128")
        writer.write(tmp_path / name)
    said = {
        "good.txt": None,
        "binary.txt": "is a binary file",
        "empty.txt": "is empty",
        "damaged.pdf": "is a damaged PDF",
        "blank.pdf": "scanned pages need OCR",
        "locked.pdf": "is encrypted with a password",
        "missing.txt": "No such file",
    }
    out = tmp_path / "out.jsonl"
    outcome = run("summarize", *said, "--out", out, cwd=tmp_path)
    assert outcome.code == 3
    assert "Traceback" not in outcome.err
    for line, (name, words) in zip(out.read_text().splitlines(), said.items(), strict=True):
        row = json.loads(line)
        assert row["source"] == name
        assert bool(row["summary"]) == (words is None)
        assert (words or "") in (row["error"] or "")
        assert (row["error"] or "") in outcome.err


def test_a_full_disk_keeps_what_is_written_and_a_second_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for i in range(20):
        (tmp_path / f"notes/{i:02}.txt").write_text(f"Note {i}. {NOTE}")
    command = [sys.executable, "-m", "localllm", "summarize", "notes", "--out", "out.jsonl", "--quiet"]
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (8000, 8000))  # a file cannot grow beyond it
    full = subprocess.run(command, cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, timeout=300)
    fails(Outcome(full.returncode, full.stdout, full.stderr), 1, "Cannot write", "File too large", "run it again")
    before = (tmp_path / "out.jsonl").read_bytes()
    assert 1 <= before.count(b"\n") < 20
    assert before.endswith(b"\n")
    assert run("summarize", "notes", "--out", "out.jsonl", "--quiet", cwd=tmp_path).code == 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["source"] for row in rows] == [f"notes/{i:02}.txt" for i in range(20)]
    assert (tmp_path / "out.jsonl").read_bytes().startswith(before)


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    for i in range(60):
        (tmp_path / f"notes/{i:02}.txt").write_text(f"Note {i}. {NOTE}" * 5)
    command = [sys.executable, "-m", "localllm", "summarize", "notes", "--out", "out.jsonl", "--json", "--slots", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while '"event": "item"' not in child.stdout.readline():
            pass
        child.send_signal(signal.SIGINT)
        _, err = child.communicate()
    assert child.returncode == 130
    assert "run the same command again to go on" in err
    rows = (tmp_path / "out.jsonl").read_text().splitlines()
    assert 1 <= len(rows) < 60
    assert all(json.loads(row)["summary"] for row in rows)


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
    with Results(tmp_path / "held", entry_of):
        fails(run("summarize", tmp_path / "a.txt", "--out", tmp_path / "held"), 1, "is being written by process")


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
