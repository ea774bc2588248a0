"""`mlx.launch -n 2 -- localllm finetune ...`: one writer, the adapter of one process, and what ends one ends all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localllm.weights.adapter import read_folder
from tests.conftest import ROOT
from tests.tune.ranks_support import free_ports, run, started
from tests.weights.oracle import fixture

PROGRAM = ["-P", "-m", "localllm", "finetune"]
RATE = 8e-4


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """More would wait for each other where other programs run."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the processes of a test put what is not to stay."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def lines(path: Path, source: str, n: int) -> str:
    path.write_text("".join((ROOT / "assets/tickets" / source).read_text().splitlines(keepends=True)[:n]))
    return str(path)


def tickets(tmp_path: Path) -> list[str]:
    """Few rows of unlike length for the built-in model, five a step: three for one process and two for the other."""
    train, valid = lines(tmp_path / "t.jsonl", "train.jsonl", 14), lines(tmp_path / "v.jsonl", "heldout.jsonl", 3)
    settings = ["--epochs", "2", "--batch-size", "5", "--learning-rate", str(RATE), "--seed", "3"]
    return [*PROGRAM, train, "--valid", valid, *settings, "--no-report", "--json"]


def losses(stdout: str) -> list[float]:
    events = map(json.loads, stdout.splitlines())
    return [event["loss"] for event in events if event.get("phase") in ("Step", "Evaluated")]


def test_launched_twice_it_makes_the_adapter_of_one(home: Any, tmp_path: Path, temporary: Path) -> None:
    command = [sys.executable, *tickets(tmp_path)]
    one = subprocess.run([*command, "--name", "one"], cwd=ROOT, capture_output=True, text=True, timeout=240, check=True)
    launcher = [str(Path(sys.executable).with_name("mlx.launch")), "-n", "2", "-p", str(free_ports(2)), "--"]
    ours, theirs = os.pipe()  # the launcher never rests when its input has ended
    try:
        two = subprocess.run(
            [*launcher, *command, "--name", "two"], cwd=ROOT, stdin=ours, capture_output=True, text=True, timeout=240,
            check=True,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    kinds = [json.loads(line)["event"] for line in two.stdout.splitlines()]
    assert (kinds.count("started"), kinds.count("done"), kinds[-1]) == (1, 1, "done")
    assert two.stderr == "localllm: process 1 of 2 trains its share; process 0 tells how it goes.\n"
    assert sorted(path.name for path in home.adapters.iterdir()) == ["one", "two"]
    assert not list(home.runs.iterdir())
    assert not list(temporary.glob("localllm-finetune-*"))
    # The same sums of float32 in another order. AdamW makes a whole step of a gradient that is nothing but rounding, so
    # single numbers may differ by more than the matrix they are in.
    np.testing.assert_allclose(losses(two.stdout), losses(one.stdout), rtol=1e-5)
    expected, found = (read_folder(home.adapters / name).layers for name in ("one", "two"))
    for path, matrices in expected.items():
        for a, b in zip(matrices, found[path], strict=True):
            assert np.linalg.norm(b - a) < 1e-3 * np.linalg.norm(a), path


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """A run of a tiny model that saves every step."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {i}.", "completion": f" {i}"}) + "\n" for i in range(24)))
    settings = ["--epochs", "4", "--batch-size", "4", "--dropout", "0.1", "--save-every", "1", "--no-report", "--json"]
    return [*PROGRAM, str(path), "--model", str(fixture("llama")), *settings]


@pytest.mark.long
def test_killed_ranks_cost_nothing(home: Any, tmp_path: Path, command: list[str]) -> None:
    again = [*command, "--name", "killed"]
    with started([sys.executable, *again], tmp_path) as ranks:
        assert ranks[0].stdout is not None
        assert any('"step": 9' in line for line in ranks[0].stdout)
        ranks[1].kill()
        _, stderr = ranks[0].communicate(timeout=240)
    assert ranks[0].returncode == 1
    assert stderr.startswith("localllm: Another process of the run has ended, or its machine cannot be reached.")
    assert len(stderr.splitlines()) == 1
    alone = subprocess.run([sys.executable, *again], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert alone.returncode == 2
    assert "is not the same: the number of processes was 2, now 1." in alone.stderr
    (status, stdout, stderr), follower = run(again, tmp_path)
    assert status == 0, stderr
    assert next(e["step"] for e in map(json.loads, stdout.splitlines()) if e.get("phase") == "Resumed") >= 8
    assert follower == (0, "", "localllm: process 1 of 2 trains its share; process 0 tells how it goes.\n")
    undisturbed = run([*command, "--name", "undisturbed"], tmp_path)
    assert [status for status, *_ in undisturbed] == [0, 0]
    made = [(home.adapters / name / "adapters.safetensors").read_bytes() for name in ("killed", "undisturbed")]
    assert made[0] == made[1]


def test_a_leader_that_is_gone_or_refused_ends_the_others(home: Any, tmp_path: Path, command: list[str]) -> None:
    with started([sys.executable, *command, "--name", "left"], tmp_path) as ranks:
        assert ranks[0].stdout is not None
        assert any('"step": 3' in line for line in ranks[0].stdout)
        ranks[0].kill()
        stdout, stderr = ranks[1].communicate(timeout=240)
    assert (ranks[1].returncode, stdout) == (1, "")
    assert "Process 1 of 2: Another process of the run has ended" in stderr


def test_other_rows_are_refused_by_all(home: Any, tmp_path: Path, command: list[str]) -> None:
    code = "import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:], '--seed', os.environ['MLX_RANK']])"
    for status, _, stderr in run(["-c", code, *command, "--name", "unlike"], tmp_path):
        assert status == 1
        assert "Process 1 was not given what process 0 was:" in stderr
        assert "--seed was 0, now 1" in stderr
    assert not list(home.runs.iterdir())
    refused = run([*command, "--name", "unlike", "--auto"], tmp_path)
    assert [status for status, *_ in refused] == [2, 2]
    assert all("--auto looks at the memory of one machine" in stderr for _, _, stderr in refused)
