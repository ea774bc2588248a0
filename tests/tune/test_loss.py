"""The loss against the plain full computation, gradients through every LoRA tensor, and the schedule."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from localllm.data.batches import collate
from localllm.errors import TrainingError
from localllm.tune import loop, loss
from localllm.tune.config import TrainConfig
from localllm.tune.events import Evaluated, Step, Trained, Warned
from localllm.tune.load import load_model
from localllm.tune.lora import attach, detached, extract
from localllm.tune.schedule import learning_rate
from localllm.types import Example
from localllm.weights.gguf import read_header
from tests.weights.oracle import shared


def rows(n: int, seed: int = 0) -> list[Example]:
    """Rows that repeat a short pattern: easy to learn."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        k = rng.randrange(6, 14)
        found.append(Example((1, *([300, 301, 302] * 8)[:k]), (False,) * 3 + (True,) * (k - 2)))
    return found


@pytest.fixture
def model() -> Any:
    loaded = load_model(read_header(shared() / "models" / "stories260K" / "stories260K.gguf"), "float32")
    attach(loaded, rank=4, alpha=8.0, seed=1)
    return loaded


def test_loss_and_gradients_equal_the_full_computation(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for layer in model.layers:  # B is zero at first, and A's gradient with it
        layer.self_attn.q_proj.lora_b = 0.1 * mx.random.normal(layer.self_attn.q_proj.lora_b.shape)
    examples = rows(5)

    def full(m: Any) -> mx.array:
        total, count = mx.array(0.0), 0
        for example in examples:
            logits = m(mx.array([example.tokens]))[0, :-1]
            wanted = [i for i, supervised in enumerate(example.mask[1:]) if supervised]
            targets = mx.array([example.tokens[i + 1] for i in wanted])
            total = total + nn.losses.cross_entropy(logits[mx.array(wanted)], targets, reduction="sum")
            count += len(wanted)
        return total / count

    expected, reference = nn.value_and_grad(model, full)(model)
    for chunk in (32, 7):  # positions: in one piece, and in several
        monkeypatch.setattr(loss, "CHUNK_LOGITS", 0)
        monkeypatch.setattr(loss, "CHUNK_ROWS", chunk)
        value, gradients = nn.value_and_grad(model, loss.batch_loss)(model, collate(examples))
        assert value.item() == pytest.approx(expected.item(), rel=1e-5)
        for (name, ours), (_, theirs) in zip(tree_flatten(gradients), tree_flatten(reference), strict=True):
            np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=2e-5, err_msg=name)


def test_every_linear_layer_learns_and_nothing_else_does(model: Any) -> None:
    _, gradients = nn.value_and_grad(model, loss.batch_loss)(model, collate(rows(4)))
    names = dict(tree_flatten(gradients))
    assert len(names) == len(model.layers) * 7 * 2
    assert all(float(mx.abs(g).max()) > 0 for name, g in names.items() if name.endswith("lora_b"))
    first = extract(model, 4, 8.0)
    for _ in loop.train(model, TrainConfig(1, 2, 1e-2), rows(4), rows(2, 1), lambda m, log: None):
        pass
    last = extract(model, 4, 8.0)
    assert all(not np.array_equal(first.tensors()[name], value) for name, value in last.tensors().items())


def test_training_learns_keeps_the_best_and_repeats_itself(model: Any) -> None:
    start = extract(model, 4, 8.0)
    results = []
    for _ in range(2):
        model.load_weights([(k, mx.array(v)) for k, v in start.tensors().items()], strict=False)
        kept: list[Any] = []
        config = TrainConfig(epochs=4, batch_size=4, learning_rate=1e-2)
        events = list(loop.train(model, config, rows(10), rows(3, 1), lambda m, log, k=kept: k.append(m)))
        results.append(kept[-1])
    steps = [e for e in events if isinstance(e, Step)]
    done = events[-1]
    assert isinstance(done, Trained)
    assert len(steps) == 12
    assert steps[-1].eta == 0.0
    assert done.best_loss == min(e.loss for e in events if isinstance(e, Evaluated))
    assert done.best_loss < 0.5 * done.first_loss
    assert all(np.array_equal(results[0][k], results[1][k]) for k in results[0])


def test_divergence_ends_the_run_with_the_best_so_far(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    true_loss, calls = loss.batch_loss, []

    def broken(m: Any, batch: Any, of: int | None = None) -> mx.array:
        calls.append(1)
        return true_loss(m, batch) * (float("nan") if len(calls) > 8 else 1.0)

    monkeypatch.setattr(loop, "batch_loss", broken)
    config = TrainConfig(epochs=9, batch_size=4, learning_rate=1e-3)
    events = list(loop.train(model, config, rows(8), rows(2, 1), lambda m, log: None))
    done = events[-1]
    assert isinstance(done, Trained)
    assert done.diverged
    assert any(isinstance(e, Warned) and "no longer a number" in e.message for e in events)
    calls.extend([1] * 8)
    monkeypatch.setattr(loop, "evaluate", lambda *args: 1.0)
    with pytest.raises(TrainingError, match="diverged after step 0"):
        list(loop.train(model, config, rows(8), rows(2, 1), lambda m, log: None))


def test_detached_answers_as_the_base(model: Any) -> None:
    tokens = mx.array([[1, 5, 9]])
    base = np.array(model(tokens))
    model.layers[0].mlp.up_proj.lora_b = mx.ones(model.layers[0].mlp.up_proj.lora_b.shape)
    assert not np.allclose(np.array(model(tokens)), base)
    with detached(model):
        assert np.array_equal(np.array(model(tokens)), base)


def test_the_schedule_rises_and_falls() -> None:
    config = TrainConfig(epochs=1, batch_size=1, learning_rate=1.0)
    rates = [learning_rate(config, step, 100) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == 1.0
    assert rates.index(1.0) == 4
    assert rates[-1] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[4:]))
