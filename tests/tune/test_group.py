"""Two real processes that share out the rows of each batch end where one process with the same batches does."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localllm.errors import TrainingError
from localllm.tasks import together
from localllm.tune.config import TrainConfig
from localllm.tune.group import Group
from localllm.tune.job import Job, write_job
from tests.tune.rank import CONFIGS, LONG, losses, trained
from tests.tune.ranks_support import ROOT, environments, run
from tests.tune.test_process import running
from tests.weights.oracle import fixture

Results = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    folder = tmp_path_factory.mktemp("ranks")
    for status, _, stderr in run([str(ROOT / "tests/tune/rank.py"), str(folder)], folder):
        assert status == 0, stderr
    return [dict(np.load(folder / f"results-{rank}.npz")) for rank in range(2)]


def adapter(results: Results, name: str) -> Results:
    prefix = f"{name}/adapter/"
    return {key.removeprefix(prefix): value for key, value in results.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_equal_one(ranks: list[Results], name: str) -> None:
    assert [int(r["rank"]) for r in ranks] == [0, 1]
    expected, events = trained(CONFIGS[name])
    first, second = (adapter(r, name) for r in ranks)
    assert first.keys() == second.keys() == expected.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert np.array_equal(ranks[0][f"{name}/losses"], ranks[1][f"{name}/losses"])
    # the same sums of float32 in another order: 1e-7 of a loss, and a little more of the next ones
    np.testing.assert_allclose(ranks[0][f"{name}/losses"], losses(events), rtol=3e-6)
    # AdamW divides each gradient by its own size, so a small one's rounding becomes a part of a whole step
    bound = 0.02 * CONFIGS[name].learning_rate
    for key, value in expected.items():
        np.testing.assert_allclose(first[key], value, rtol=0, atol=bound, err_msg=key)


def test_a_killed_run_ends_as_an_undisturbed_one_though_only_rank_0_has_checkpoints(ranks: list[Results]) -> None:
    for results in ranks:
        undisturbed, killed = adapter(results, "undisturbed"), adapter(results, "killed")
        assert {n: v.tobytes() for n, v in killed.items()} == {n: v.tobytes() for n, v in undisturbed.items()}
        assert results["resumed at"].tolist() == [5]
    assert [int(r["checkpoints"]) for r in ranks] == [4, 0]


def test_a_stop_of_one_is_one_of_all(ranks: list[Results]) -> None:
    assert [int(r["stopped after"]) for r in ranks] == [2, 2]
    assert [int(r["saved"]) for r in ranks] == [2, -1]


def test_what_processes_tell_each_other(ranks: list[Results]) -> None:
    for results in ranks:
        assert results["sent"]
        assert results["any"]
        assert json.loads(str(results["gathered"])) == [{"rank": 0, "text": ""}, {"rank": 1, "text": "ööö"}]
        assert str(results["refused"]) == "Process 1 was not given what process 0 was: --seed was 0, now 1."


def test_rows_are_shared_out_whole() -> None:
    shares = [Group(rank, 3).share(list(range(7))) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    """The environment of rank 0 of two whose rank 1 never comes; `tmp_path` has its job."""
    job = Job("train", fixture("llama"), tmp_path, tmp_path / "cache", TrainConfig(1, 1, 1e-3), processes=2)
    write_job(tmp_path, job, train=[LONG] * 2, held_out=[LONG])
    return environments(tmp_path)[0]


def test_nobody_is_waited_for_for_ever(tmp_path: Path, alone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "PATIENCE", 3.0)
    for name in ("MLX_RANK", "MLX_HOSTFILE"):
        monkeypatch.setenv(name, alone[name])
    with pytest.raises(TrainingError, match=r"did not come within 0\.05 minutes"):
        list(together.train_together(tmp_path, threading.Event()))


def test_who_waits_does_not_outlive_a_killed_parent(tmp_path: Path, alone: dict[str, str]) -> None:
    code = (
        "import sys; from pathlib import Path; from localllm.tune.process import _child\n"
        "with _child(Path(sys.argv[1])) as child:\n"
        "    print(child.pid, flush=True)\n"
        "    child.wait()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=alone) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(2)  # until it waits; before, its own thread ends it
        assert running(child)
        parent.kill()
        deadline = time.monotonic() + 10
        while running(child) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not running(child)
