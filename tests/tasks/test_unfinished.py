"""Runs that were left are found again with all that was asked, and may be ended with what they have."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from localllm.errors import CancelledError, StorageError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.finetune import Done, finetune
from localllm.tasks.preparing import FinetuneRequest
from localllm.tasks.rehearsing import Rehearsal
from localllm.tasks.runs import RunFolder
from localllm.tasks.unfinished import ask_to_finish, forget, unfinished
from localllm.tune.events import Evaluated, Resumed, Step, Trained, Warned
from tests.weights.oracle import shared


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Home(tmp_path / "home"))


def asked(tmp_path: Path) -> FinetuneRequest:
    """A run of 44 steps, 11 an epoch."""
    data, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    pairs = [{"prompt": f"Say {n}.", "completion": f" {n} and good bye."} for n in "abcdefghijklmnopqrstuv"]
    data.write_text("\n".join(map(json.dumps, pairs)) + "\n")
    other.write_text("\n".join(map(json.dumps, pairs[:4])) + "\n")
    return FinetuneRequest(
        data=data, name="bye", model=str(shared() / "models" / "stories260K" / "stories260K.gguf"), epochs=4,
        batch_size=2, rehearse=Rehearsal(other, 0.0001), learning_rate=1e-3,
    )  # fmt: skip


def leave(registry: Registry, request: FinetuneRequest, after: int) -> None:
    cancel = threading.Event()
    with pytest.raises(CancelledError):
        for event in finetune(registry, request, cancel):
            if isinstance(event, Step) and event.step >= after:
                cancel.set()


def test_a_run_that_was_left_is_found_with_all_that_was_asked(
    tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = asked(tmp_path)
    monkeypatch.chdir(tmp_path)
    leave(registry, replace(request, data=Path("rows.jsonl")), 3)
    (found,) = unfinished(registry.home)
    assert found.request == replace(request, resume=True)
    assert 3 <= found.step < found.steps == 44
    monkeypatch.chdir("/")
    events = list(finetune(registry, found.request))
    assert isinstance(events[-1], Done)
    assert unfinished(registry.home) == []


def test_what_is_no_run_to_go_on_with_is_passed_over(tmp_path: Path, registry: Registry) -> None:
    leave(registry, asked(tmp_path), 2)
    (registry.home.runs / "empty").mkdir()
    strange = registry.home.runs / "strange"
    strange.mkdir()
    (strange / "step-000000002.checkpoint").touch()
    (strange / "request.json").write_text('{"class": "Asked", "request": 7, "steps": 1}')
    assert [run.name for run in unfinished(registry.home)] == ["bye"]
    with RunFolder(registry.home, "bye"):
        assert unfinished(registry.home) == []
        with pytest.raises(StorageError, match="going on"):
            forget(registry.home, "bye")
        ask_to_finish(registry.home.runs / "bye")  # nobody takes it: the next run is not to end by it
    assert unfinished(registry.home) == []


def test_a_forgotten_run_is_gone(tmp_path: Path, registry: Registry) -> None:
    leave(registry, asked(tmp_path), 2)
    forget(registry.home, "bye")
    forget(registry.home, "bye")
    assert unfinished(registry.home) == []
    assert not (registry.home.runs / "bye").exists()


def test_a_run_is_ended_with_the_best_so_far(tmp_path: Path, registry: Registry) -> None:
    events = []
    for event in finetune(registry, asked(tmp_path)):
        events.append(event)
        if isinstance(event, Step) and event.step == 13:
            ask_to_finish(registry.home.runs / "bye")
    trained = next(event for event in events if isinstance(event, Trained))
    losses = [(event.loss, event.epoch) for event in events if isinstance(event, Evaluated) and event.epoch]
    assert 13 <= trained.steps < 44
    assert [epoch for _, epoch in losses] == [1, 2]  # the second one is what there was of it
    assert (trained.best_loss, trained.best_epoch) == min(losses)
    assert any(isinstance(e, Warned) and f"ended at step {trained.steps} of 44, as asked" in e.message for e in events)
    assert isinstance(events[-1], Done)
    assert not (registry.home.runs / "bye").exists()


def test_a_run_that_was_left_is_ended_with_the_best_so_far(tmp_path: Path, registry: Registry) -> None:
    leave(registry, asked(tmp_path), 3)
    (found,) = unfinished(registry.home)
    events = list(finetune(registry, replace(found.request, finish=True)))
    assert any(isinstance(event, Resumed) for event in events)
    assert not any(isinstance(event, Step) for event in events)
    assert next(event for event in events if isinstance(event, Trained)).steps == found.step
    assert isinstance(events[-1], Done)
