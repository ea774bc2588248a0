"""The training child: it ends with its parent, and its death is explained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from localllm.errors import CancelledError, TrainingError
from localllm.tune import process
from localllm.tune.config import TrainConfig
from localllm.tune.events import Ready, Step, decode, encode
from localllm.tune.job import Job, read_examples, read_job, write_job
from localllm.types import Example
from tests.weights.oracle import shared

ROW = Example((1, *([300, 301] * 10)), (False,) * 3 + (True,) * 18)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A job that would train for hours."""
    model = shared() / "models" / "stories260K" / "stories260K.gguf"
    (tmp_path / "adapter").mkdir()
    config = TrainConfig(epochs=100_000, batch_size=4, learning_rate=1e-4)
    job = Job("train", model, tmp_path / "adapter", tmp_path / "cache", config)
    write_job(tmp_path, job, train=[ROW] * 8, held_out=[ROW])
    return tmp_path


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_job_and_its_events_survive_the_trip(folder: Path) -> None:
    job = read_job(folder)
    assert job.config == TrainConfig(epochs=100_000, batch_size=4, learning_rate=1e-4)
    assert job.adapter == folder / "adapter"
    assert [e.tokens for e in read_examples(folder, "held_out")] == [ROW.tokens]
    step = Step(1, 2, 1, 0.5, 1e-3, 10, 5.0, 1.0)
    assert decode(encode(step)) == step


def test_cancel_ends_the_child_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(process.subprocess, "Popen", lambda *a, **k: children.append(popen(*a, **k)) or children[-1])
    cancel = threading.Event()
    started = 0.0
    with pytest.raises(CancelledError):
        for event in process.run_job(folder, cancel):
            if isinstance(event, Step):
                started = started or time.monotonic()
                cancel.set()
    assert time.monotonic() - started < 3
    assert children[0].poll() is not None


def test_a_killed_child_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(process.subprocess, "Popen", lambda *a, **k: children.append(popen(*a, **k)) or children[-1])
    with pytest.raises(TrainingError, match="ran out of memory") as caught:
        for event in process.run_job(folder):
            if isinstance(event, Ready):
                children[0].kill()
    assert "--batch-size" in caught.value.hint


def test_the_child_does_not_outlive_a_killed_parent(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from localllm.tune.process import _child\n"
        "with _child(Path(sys.argv[1])) as child:\n"
        "    print(child.pid, flush=True)\n"
        "    child.stdout.readline()\n"
        "    print('running', flush=True)\n"
        "    child.wait()\n"
    )
    root = Path(process.__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.stdout.readline()
        assert running(child)
        parent.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while running(child) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not running(child)


def test_a_failure_inside_says_what_is_wrong(folder: Path) -> None:
    broken = folder / "not.gguf"
    broken.write_bytes(b"hello")
    job = Job("train", broken, folder / "adapter", folder / "cache", TrainConfig(1, 1, 1e-3))
    write_job(folder, job, train=[ROW], held_out=[ROW])
    with pytest.raises(TrainingError, match="is not a GGUF"):
        list(process.run_job(folder))
    (folder / "job.json").write_text("{}")
    with pytest.raises(TrainingError, match="ended with status 1: KeyError"):
        list(process.run_job(folder))
