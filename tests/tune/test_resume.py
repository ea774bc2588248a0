"""A run that was put down and taken up again ends as one that was not, to the bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from localllm.errors import TrainingError
from localllm.tune import checkpoint, loop
from localllm.tune.config import TrainConfig
from localllm.tune.events import Resumed, Step, Trained, Warned
from localllm.tune.load import load_model
from localllm.tune.loop import train
from localllm.tune.lora import attach
from localllm.tune.randomness import random_key, set_random_key
from localllm.tune.resume import differences, fingerprint
from localllm.tune.saving import Saver
from localllm.weights.gguf import read_header
from tests.tune.test_loss import rows
from tests.weights.oracle import fixture

RUNTIME = {"device": "cpu", "blas": "x", "threads": 1}
TIMES = ("tokens_per_second", "eta", "seconds", "peak_rss_mb")
PLAIN = TrainConfig(epochs=3, batch_size=4, learning_rate=1e-2, dropout=0.1, rank=4, alpha=8.0)


def model(config: TrainConfig) -> Any:
    loaded = load_model(read_header(fixture("llama")), "float32")
    attach(loaded, config.rank, config.alpha, config.dropout, config.seed, config.targets, config.layers)
    return loaded


def session(folder: Path, config: TrainConfig, stop_after: int | None = None) -> tuple[list[Any], dict[str, Any]]:
    """One process's part of a run: its events, and what was kept. `stop_after` counts its own steps."""
    kept: dict[str, Any] = {}
    events: list[Any] = []
    folder.mkdir(exist_ok=True)
    saver = Saver(folder, {}, RUNTIME, every=1)
    for event in train(
        model(config), config, rows(21), rows(3, 1), lambda best, log: kept.update(best, log=log), saver
    ):
        events.append(event)
        if isinstance(event, Step) and len([e for e in events if isinstance(e, Step)]) == stop_after:
            break  # as a kill would, before this step has been saved
    return events, kept


def untimed(log: list[str]) -> list[dict[str, Any]]:
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in log]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"accumulate": 4},
        {"optimizer": "adafactor", "weight_decay": 0.0},
        {"optimizer": "lion", "learning_rate": 1e-3},
        {"optimizer": "muon"},
        {"lora_plus": 4.0, "layers": 1},
        {"max_steps": 7},
        {"patience": 1, "schedule": "constant", "rslora": True},
    ],
    ids=str,
)
def test_stopped_anywhere_it_ends_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = replace(PLAIN, **changes)
    whole, expected = session(tmp_path / "whole", config)
    last = checkpoint.newest(tmp_path / "whole").checkpoint
    parts: list[Any] = []
    for stop_after in (1, 2, 3, 1):
        parts, _ = session(tmp_path / "parts", config, stop_after)
    parts, found = session(tmp_path / "parts", config)
    assert isinstance(parts[0], Resumed)
    end = checkpoint.newest(tmp_path / "parts").checkpoint
    assert last is not None
    assert end is not None
    assert untimed(found.pop("log")) == untimed(expected.pop("log"))
    assert {n: v.tobytes() for n, v in found.items()} == {n: v.tobytes() for n, v in expected.items()}
    assert {n: v.tobytes() for n, v in end.arrays.items()} == {n: v.tobytes() for n, v in last.arrays.items()}
    assert "random" in end.arrays
    assert len(end.arrays) > len(expected) * 2
    assert isinstance(whole[-1], Trained)


def test_what_was_finished_is_not_trained_again(tmp_path: Path) -> None:
    _, expected = session(tmp_path, PLAIN)
    events, found = session(tmp_path, PLAIN)
    assert [type(e) for e in events] == [Resumed, Trained]
    assert all(np.array_equal(found[name], expected[name]) for name in expected if name != "log")


def test_a_damaged_checkpoint_is_said_and_the_one_before_used(tmp_path: Path) -> None:
    session(tmp_path, PLAIN, 5)
    newest = max(tmp_path.glob("*.checkpoint"))
    content = bytearray(newest.read_bytes())
    content[-100] ^= 8
    newest.write_bytes(content)
    warned, resumed = session(tmp_path, PLAIN)[0][:2]
    assert isinstance(warned, Warned)
    assert newest.name in warned.message
    assert (resumed.step, resumed.steps) == (3, 18)


def test_a_full_disk_is_said_once_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session(tmp_path, PLAIN, 4)

    def full(folder: Path, what: checkpoint.Checkpoint) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", full)
    events, kept = session(tmp_path, PLAIN)
    assert len([e for e in events if isinstance(e, Warned) and "No space left" in e.message]) == 1
    assert isinstance(events[-1], Trained)
    assert kept
    found = checkpoint.newest(tmp_path).checkpoint
    assert found is not None
    assert found.facts["step"] == 3


def test_a_stop_saves_the_step_that_is_done(tmp_path: Path) -> None:
    saver, events = Saver(tmp_path, {}, RUNTIME), []
    for event in train(model(PLAIN), PLAIN, rows(21), rows(3, 1), lambda best, log: None, saver):
        events.append(event)
        if isinstance(event, Step) and event.step == 5:
            saver.stop = True
    assert isinstance(events[-1], Step)
    found = checkpoint.newest(tmp_path).checkpoint
    assert found is not None
    assert found.facts["step"] == 5


def test_another_device_is_refused(tmp_path: Path) -> None:
    session(tmp_path, PLAIN, 2)
    saver = Saver(tmp_path, {}, RUNTIME | {"device": "metal"})
    with pytest.raises(TrainingError, match=r"begun on cpu \(x, 1 threads\), and this is metal"):
        next(train(model(PLAIN), PLAIN, rows(21), rows(3, 1), lambda best, log: None, saver))


def test_the_random_key_goes_on() -> None:
    mx.random.seed(2**63 + 5)
    mx.random.normal((3,))
    key = random_key()
    drawn = np.array(mx.random.normal((5,)))
    set_random_key(key)
    assert np.array_equal(np.array(mx.random.normal((5,))), drawn)


def test_patience_stops_and_keeps_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([6.0, 4.0, 3.0, 3.5, 3.2, 1.0])  # the first is the base's
    monkeypatch.setattr(loop, "evaluate", lambda *_: next(losses))
    config = replace(PLAIN, epochs=5, patience=2)
    events, kept = session(tmp_path, config)
    done = events[-1]
    assert (done.early, done.best_epoch, done.best_loss, done.steps) == (True, 2, 3.0, 24)
    last = checkpoint.newest(tmp_path).checkpoint
    assert last is not None
    name = "model.layers.0.self_attn.q_proj.lora_b"
    assert np.array_equal(kept[name], last.arrays[f"best.{name}"])
    assert not np.array_equal(kept[name], last.arrays[f"adapter.{name}"])


def test_differences_are_named() -> None:
    before = fingerprint("a" * 64, "16bit", PLAIN, rows(4), rows(2, 1))
    assert differences(before, json.loads(json.dumps(before))) == []
    config = replace(PLAIN, learning_rate=1e-4, targets=("self_attn.q_proj",))
    now = fingerprint("b" * 64, "16bit", config, rows(5), rows(2, 2))
    assert differences(before, now) == [
        "the model's content hash was aaaaaaaaaaaa, now bbbbbbbbbbbb",
        "the number of training rows was 4, now 5",
        f"the content of the validation rows was {before['held_out'][:12]}, now {now['held_out'][:12]}",
        "--learning-rate was 0.01, now 0.0001",
        "--targets was the usual ones, now self_attn.q_proj",
    ]
    assert differences({**before, "format": 0}, before) == ["the format of checkpoints was 0, now 1"]
