"""What launchers leave in the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from localllm.errors import UsageError
from localllm.tune.ranks import ALONE, Place, place, shared_threads


def listed(tmp_path: Path, *entries: object) -> str:
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps(entries) if entries else "\n")
    return str(path)


def test_without_a_launcher_there_is_one() -> None:
    assert place({}) == ALONE == Place(0, 1)


def test_a_ring(tmp_path: Path) -> None:
    hosts = listed(tmp_path, ["10.0.0.1:32323", "10.0.1.1:32324"], ["10.0.0.2:32325"], ["10.0.0.1:32326"])
    assert place({"MLX_RANK": "1", "MLX_HOSTFILE": hosts}) == Place(1, 3, "ring", 1)
    assert place({"MLX_RANK": "2", "MLX_HOSTFILE": hosts}) == Place(2, 3, "ring", 2)
    assert place({"MLX_RANK": "0", "MLX_HOSTFILE": listed(tmp_path)}) == ALONE  # mlx.launch -n 1


def test_the_other_backends(tmp_path: Path) -> None:
    devices = listed(tmp_path, [None, "rdma_en2"], ["rdma_en2", None])
    assert place({"MLX_RANK": "1", "MLX_IBV_DEVICES": devices}) == Place(1, 2, "jaccl")
    assert place({"MLX_RANK": "3", "MLX_WORLD_SIZE": "4"}) == Place(3, 4, "nccl")
    mpi = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    assert place(mpi) == Place(1, 2, "mpi", 2)


@pytest.mark.parametrize(
    "environ, problem",
    [
        ({"MLX_RANK": "0"}, "none of MLX_HOSTFILE"),
        ({"MLX_RANK": "2", "MLX_WORLD_SIZE": "2"}, "rank 2 of 2"),
        ({"MLX_RANK": "x", "MLX_WORLD_SIZE": "2"}, "invalid literal"),
        ({"MLX_RANK": "0", "MLX_HOSTFILE": "/nowhere"}, "No such file"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_RANK"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        place(environ)


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    assert shared_threads(ALONE) is None
    assert [shared_threads(Place(0, 32, beside=n)) for n in (1, 3, 32)] == [10, 3, 1]
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    assert shared_threads(Place(0, 2, beside=2)) is None
