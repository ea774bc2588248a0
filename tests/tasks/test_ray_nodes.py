"""Work on a cluster, with a child that misbehaves instead of Ray: every item has one result, or it is said why not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from localllm.errors import EngineError, UsageError
from localllm.tasks import ray_nodes
from localllm.tasks.ray_nodes import Cluster, Work, piece_for

ITEMS = [f"item {i} ü\n" for i in range(8)]
RESULTS = [(i, item.upper()) for i, item in enumerate(ITEMS)]


class Strange(Cluster):
    child = "tests.tasks.strange_ray_child"


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    return tmp_path / "marks"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(ray_nodes, "find_spec", lambda _: object())
    monkeypatch.setattr(ray_nodes, "_SILENCE", 1.0)
    return Strange()


@pytest.mark.parametrize("kind", ["works", "twice", "dies", "fails", "sleeps"])
def test_what_has_no_result_is_begun_again(cluster: Cluster, marks: Path, kind: str) -> None:
    found = list(cluster.spread(ITEMS, Work(kind, {"marks": str(marks)})))
    assert sorted(found) == RESULTS
    assert marks.read_text().split() == (["8"] if kind in ("works", "twice") else ["8", "5"])


def test_what_a_worker_tells_ends_the_work(cluster: Cluster, marks: Path) -> None:
    found = []
    with pytest.raises(EngineError, match=r"box: it has no such model\. Fetch it\."):
        found.extend(cluster.spread(ITEMS, Work("tells", {"marks": str(marks)})))
    with pytest.raises(UsageError, match=r"no Ray cluster here that answers \(nobody there\)\. Start one with `ray"):
        list(cluster.spread(ITEMS, Work("no_cluster", {"marks": str(marks)})))


def test_a_cluster_that_only_fails_is_given_up(cluster: Cluster, marks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_nodes, "_ROUNDS", 2)
    with pytest.raises(EngineError, match="The cluster fails: the disk of the cluster is full"):
        list(cluster.spread(ITEMS, Work("never", {"marks": str(marks)})))
    assert marks.read_text().split() == ["8", "8"]


def test_stopping_takes_no_further_result(cluster: Cluster, marks: Path) -> None:
    cancel = threading.Event()
    found = []
    for result in cluster.spread(ITEMS, Work("works", {"marks": str(marks)}), cancel=cancel):
        found.append(result)
        cancel.set()
    assert found == RESULTS[:1]
    assert list(cluster.spread([], Work("works", {"marks": str(marks)}))) == []


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_nodes, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"Ray is not installed\. Install it with: pip install 'localllm\[ray\]'"):
        Cluster()


def test_pieces_are_many() -> None:
    assert [piece_for(n) for n in (0, 1, 15, 64, 512, 10**6)] == [1, 1, 1, 4, 32, 32]
