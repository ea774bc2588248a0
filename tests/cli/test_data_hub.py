"""Datasets of the hub on the command line: looked at, learned from and remembered by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.helpers import fails, run
from tests.hub.server import HubServer, serving

TRAIN = b"".join(b'{"prompt": "%d + 1", "completion": "%d"}\n' % (i, i + 1) for i in range(12))
VALID = b"".join(b'{"prompt": "%d + 1", "completion": "%d"}\n' % (i, i + 1) for i in range(20, 23))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as hub:
        for name in [name for name in os.environ if name.startswith("HF_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield hub


def test_a_dataset_is_checked_shown_and_trained_on_by_its_name(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = server.repo("datasets/me/sums", {"train.jsonl": TRAIN, "validation.jsonl": VALID, "README.md": b"# Sums"})
    first = repo.branches["main"]
    repo.commit({"train.jsonl": b'{"prompt": 1}\n'})
    bad = run("data", "check", "me/sums", "--json")
    assert (bad.code, bad.json["usable"]) == (1, False)
    checked = run("data", "check", "me/sums", "--revision", first, "--json")
    assert (checked.code, checked.json["rows"], checked.json["valid_rows"]) == (0, 12, 3)
    shown = run("data", "show", f"me/sums@{first}", "-n", "1")
    assert "0 + 1" in shown.out
    assert f"me/sums at {first[:12]}: 2 files" in shown.err
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run("finetune", "me/sums", "--revision", first, "--max-steps", "1", "--no-report", "--json")
    assert done.code == 0, done.err
    warned = next(event for event in done.events if event["event"] == "warning")
    assert "HF_HUB_OFFLINE is set" in warned["message"]
    assert run("show", "sums", "--json").json["training"]["data"] == f"me/sums@{first[:12]}"


def test_failures_are_one_line_with_what_to_do_next(server: HubServer) -> None:
    server.repo("datasets/me/sums", {"train.jsonl": TRAIN})
    fails(run("data", "check", "me/summs"), 1, "no repository datasets/me/summs", "Did you mean me/sums?")
    fails(run("data", "check", "rows.jsonl", "--revision", "v1"), 2, "--revision is of a dataset on the hub")
    fails(run("pull", "hf.co/datasets/me/sums"), 2, "is not a model", "localllm data check")
