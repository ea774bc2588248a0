"""Threads by the size of the model and the cores there are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from localllm.engine import threads


def test_a_tiny_model_takes_one_and_a_large_one_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "physical_cores", lambda: 8)
    assert [threads.default_threads(size) for size in (4_000_000, 100_000_000, 4_000_000_000)] == [1, 3, 8]


@pytest.mark.skipif(sys.platform != "linux", reason="the folder that tells threads of one core apart is Linux's")
def test_hyper_threads_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cpu, siblings in {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}.items():
        (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/topology/thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(threads, "_CPU_FOLDER", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert threads.physical_cores() == 2
