"""`localllm batch` as a child process."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from localllm.tasks.batch_requests import entry_of
from localllm.tasks.results import Results
from tests.cli.helpers import fails, run
from tests.conftest import ROOT
from tests.tasks.test_answer_endpoint import KEY, Server


def requests(path: Path, n: int, **body: Any) -> Path:
    body = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 16, **body}
    lines = [{"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body} for i in range(n)]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def custom_ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def start(source: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "localllm", "batch", str(source), "--out", str(out), "--ctx", "128", "--json"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_rows_are_written_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    source, out = requests(tmp_path / "in.jsonl", 3), tmp_path / "out.jsonl"
    first = run("batch", source, "--out", out, "--json")
    assert first.code == 0, first.err
    assert [event["event"] for event in first.events] == ["started", "item", "item", "item", "done"]
    done = first.events[-1]
    assert {"requests", "failed", "seconds", "tokens", "tokens_per_second", "peak_rss_mb"} <= done.keys()
    assert sorted(custom_ids(out)) == ["r0", "r1", "r2"]
    before = out.read_bytes()
    second = run("batch", source, "--out", out)
    assert (second.code, second.out) == (0, "")
    assert "3 already done" in second.err
    assert out.read_bytes() == before
    out.unlink()
    assert run("batch", source, "--out", out, "--quiet").code == 0
    assert sorted(out.read_bytes().splitlines()) == sorted(before.splitlines())


def test_a_refused_request_is_a_row_and_exit_code_3(tmp_path: Path) -> None:
    source, out = requests(tmp_path / "in.jsonl", 1, modalities=["audio"]), tmp_path / "out.jsonl"
    outcome = run("batch", source, "--out", out, "--quiet")
    assert outcome.code == 3
    assert '"modalities" is supported as ["text"] only' in outcome.err
    assert json.loads(out.read_text())["error"]["code"] == "invalid_request"


def test_what_cannot_work_is_one_clear_line(tmp_path: Path) -> None:
    source = requests(tmp_path / "in.jsonl", 1)
    fails(run("batch", source, "--out", tmp_path), 2, "is a folder")
    fails(run("batch", source, "--out", source), 2, "over the requests")
    fails(run("batch", tmp_path / "none.jsonl", "--out", tmp_path / "out.jsonl"), 1, "cannot be read")
    fails(run("batch", source, "--out", tmp_path / "out.jsonl", "--parallel", "0"), 2, "--parallel")
    fails(run("batch", source, "--out", tmp_path / "out.jsonl", "--model", "none"), 1, "no model named")
    with Results(tmp_path / "held", entry_of):
        fails(run("batch", source, "--out", tmp_path / "held"), 1, "is being written by process")
    fails(run("batch", source, "--out", tmp_path / "o", "--endpoint", "http://a", "--ray"), 2, "--ray is for a model")


def test_kill_at_any_time_leaves_every_request_once(tmp_path: Path) -> None:
    source, out, rng = requests(tmp_path / "in.jsonl", 300), tmp_path / "out.jsonl", random.Random(1)
    for _ in range(3):
        child = start(source, out)
        assert child.stdout is not None
        while '"item"' not in (line := child.stdout.readline()):
            assert line, child.communicate()
        time.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.communicate()
    finished = run("batch", source, "--out", out, "--ctx", "128", "--json")
    assert finished.events[-1]["skipped"] >= 3
    assert sorted(custom_ids(out)) == sorted(f"r{i}" for i in range(300))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    source, out = requests(tmp_path / "in.jsonl", 200), tmp_path / "out.jsonl"
    child = start(source, out)
    assert child.stdout is not None
    while '"item"' not in child.stdout.readline():
        pass
    child.send_signal(signal.SIGINT)
    _, err = child.communicate()
    assert child.returncode == 130
    assert "run the same command again to go on" in err
    assert 0 < len(custom_ids(out)) < 200


def test_a_server_may_answer_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = requests(tmp_path / "in.jsonl", 12), tmp_path / "out.jsonl"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        command = ("batch", source, "--out", out, "--endpoint", server.url, "--endpoint-model", "m")
        first = run(*command)
        assert (first.code, first.out) == (0, "")
        assert "12 already done" in run(*command).err
    finally:
        server.shutdown()
        server.server_close()
    assert server.seen == {"Who are you?": 12}
    assert server.keys == {f"Bearer {KEY}"}
    assert len(set(custom_ids(out))) == 12
    assert KEY not in first.err + out.read_text()
    fails(run(*command, "--model", "guide"), 2, "--endpoint-model")
    fails(run("batch", source, "--out", out, "--timeout", "5"), 2, "--timeout needs --endpoint")
