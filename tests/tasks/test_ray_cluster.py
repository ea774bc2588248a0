"""Two nodes of a Ray cluster on this machine, one of which is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localllm.errors import EngineError, UsageError
from localllm.tasks.ray_nodes import Cluster, Work
from tests.conftest import ROOT

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed: localllm[ray]")
pytestmark = pytest.mark.long
ITEMS = [f"item {i}" for i in range(120)]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes with a processor each, whose workers find this checkout."""
    from ray.cluster_utils import Cluster as Machines

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100_000_000}
    machines = Machines(initialize_head=True, head_node_args=node)
    machines.second = machines.add_node(num_cpus=1, object_store_memory=100_000_000)
    yield machines
    machines.shutdown()


def kill_second(machines: Any) -> None:
    machines.remove_node(machines.second, allow_graceful=False)


def follow(command: list[str], machines: Any, kill_after: int) -> list[dict[str, Any]]:
    """Events of a command on the cluster, which loses a node after so many items."""
    events: list[dict[str, Any]] = []
    command = [sys.executable, "-m", "localllm", *command, "--json", "--ray", machines.address]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            events.append(json.loads(line))
            if sum(event["event"] == "item" for event in events) == kill_after and machines.second is not None:
                kill_second(machines)
                machines.second = None
    assert child.returncode == 0
    return events


def local(command: list[str]) -> dict[str, Any]:
    """The last event of the same command without the cluster."""
    done = subprocess.run(
        [sys.executable, "-m", "localllm", *command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    last: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return last


def test_each_node_works_and_what_a_lost_one_had_is_done_again(machines: Any) -> None:
    cluster, found = Cluster(machines.address), []
    for number, result in cluster.spread(ITEMS, Work("tests.tasks.ray_workers:slowly"), piece=4):
        node, item = result.split(" ", 1)
        assert item == ITEMS[number]
        found.append((node, number))
        if len(found) == 40:
            assert len({node for node, _ in found}) == 2
            kill_second(machines)
    assert sorted(number for _, number in found) == list(range(120))
    with pytest.raises(EngineError, match=r": the model is of another kind\. Fetch it anew\."):
        list(cluster.spread(ITEMS[:8], Work("tests.tasks.ray_workers:failing")))
    with pytest.raises(EngineError, match="AttributeError"):
        list(cluster.spread(ITEMS[:8], Work("tests.tasks.ray_workers:nothing")))


def test_a_batch_loses_a_node_and_no_request(machines: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 24}
    lines = [{"custom_id": f"r{i}", "url": "/v1/chat/completions", "body": body | {"seed": i}} for i in range(300)]
    source.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    command = ["batch", str(source), "--out", str(out), "--ctx", "128", "--threads", "1", "--parallel", "2"]
    done = follow(command, machines, 60)[-1]
    assert (done["event"], done["requests"], done["failed"]) == ("done", 300, 0)
    ids = [json.loads(row)["custom_id"] for row in out.read_text().splitlines()]
    assert sorted(ids) == sorted(f"r{i}" for i in range(300))
    assert local(command)["skipped"] == 300


def test_summaries_lose_a_node_and_are_those_of_one_machine(machines: Any, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    for i in range(60):
        (notes / f"{i:02}.txt").write_text(f"Note {i}. " + "The mill by the river was sold again. " * (1 + 3 * (i % 9)))
    options = ["--part-tokens", "100", "--max-tokens", "24", "--threads", "1", "--slots", "2"]
    command = ["summarize", str(notes), *options, "--out"]
    out, alone = tmp_path / "out.jsonl", tmp_path / "alone.jsonl"
    done = follow([*command, str(out)], machines, 12)[-1]
    assert (done["documents"], done["failed"]) == (60, 0)
    assert local([*command, str(out)])["skipped"] == 60
    local([*command, str(alone)])

    def rows(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) | {"timings": None} for line in path.read_text().splitlines()]

    assert rows(out) == rows(alone)


def test_no_cluster_is_said_soon() -> None:
    with pytest.raises(UsageError, match=r"no Ray cluster here that answers .*`ray start --head`"):
        list(Cluster("127.0.0.1:1").spread(ITEMS, Work("tests.tasks.ray_workers:slowly")))
