"""`localllm bench train`: our training of some rows beside that of the peers."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tests.cli.helpers import fails, run
from tests.weights.oracle import fixture

PEER = """#!/bin/sh
cp "$3" "%s"
echo '{"tokens": 600, "seconds": 3.0, "version": "9.9"}'
"""


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Say {i}.", "completion": f" {i}"}) + "\n" for i in range(12)))
    return path


def test_ours_is_measured_and_the_peer_trains_on_the_same_rows(tmp_path: Path, rows: Path) -> None:
    peer, seen = tmp_path / "python", tmp_path / "job.json"
    peer.write_text(PEER % seen)
    peer.chmod(peer.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "hf").mkdir()
    model = str(fixture("llama"))
    settings = ["--steps", "3", "--batch-size", "4", "--rank", "2", "--runs", "1"]
    peers = ["--hf", tmp_path / "hf", "--peer", peer]
    result = run("bench", "train", model, rows, *peers, *settings, "--json")
    ours, theirs = result.json["programs"]
    assert (ours["program"], ours["runs"], theirs["program"]) == ("localllm", 1, "peft")
    assert ours["tokens_per_second"] > 0
    assert ours["peak_rss"] > 10**7
    assert theirs["tokens_per_second"] == 200
    job = json.loads(seen.read_text())
    assert (len(job["rows"]), job["batch"], job["rank"]) == (12, 4, 2)
    assert all(0 < prompt < len(tokens) for tokens, prompt in job["rows"])
    assert "mlx_lm: not measured" in result.err  # the folder holds no model


def test_too_few_rows_are_said(rows: Path) -> None:
    outcome = run("bench", "train", str(fixture("llama")), rows)
    fails(outcome, 1, "has 12 rows of use, and 56 are needed")
