"""Each setting does what it says, measured on the gradients and numbers that it changes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_unflatten

from localllm.data.batches import collate
from localllm.tune import loop
from localllm.tune.config import RATES, TrainConfig
from localllm.tune.events import Trained, Warned
from localllm.tune.load import load_model
from localllm.tune.loop import Run, train
from localllm.tune.lora import attach, tensors
from localllm.tune.loss import batch_loss
from localllm.tune.optimizer import Stepper
from localllm.tune.randomness import random_key, set_random_key
from localllm.tune.recompute import recompute_layers
from localllm.tune.schedule import learning_rate
from localllm.types import Example
from localllm.weights.gguf import read_header
from tests.tune.test_loss import rows
from tests.weights.oracle import fixture

CONFIG = TrainConfig(epochs=1, batch_size=4, learning_rate=1e-2, rank=4, alpha=8.0)


def model(config: TrainConfig = CONFIG, *, changed: bool = False) -> Any:
    """With LoRA attached; `changed` makes its B other than zero, so that every gradient is."""
    loaded = load_model(read_header(fixture("llama")), "float32")
    attach(loaded, config.rank, config.alpha, config.dropout, config.seed, config.targets, config.layers)
    if changed:
        noise = {n: mx.random.normal(v.shape) * 0.1 for n, v in flat(loaded).items() if n.endswith("lora_b")}
        loaded.load_weights(list(noise.items()), strict=False)
    return loaded


def flat(model: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(model.trainable_parameters()))  # type: ignore[arg-type]


class Watched:
    """A stepper that only notes what it is given."""

    def __init__(self) -> None:
        self.gradients: dict[str, np.ndarray[Any, Any]] = {}
        self.rates: list[float] = []

    def update(self, gradients: Any, rate: float) -> None:
        self.gradients = {name: np.array(value) for name, value in tree_flatten(gradients)}
        self.rates.append(rate)


def given(run: Run) -> Watched:
    run._stepper = watched = Watched()  # type: ignore[assignment]
    return watched


def test_accumulated_batches_have_the_gradient_of_all_their_tokens() -> None:
    examples = [*rows(7), Example((1, 300, 301, 302), (False, False, False, True)), *rows(3, 4)]  # unlike numbers
    learner = model(changed=True)

    def full(m: Any) -> mx.array:
        total, count = mx.array(0.0), 0
        for example in examples:
            logits = m(mx.array([example.tokens]))[0, :-1]
            wanted = [i for i, supervised in enumerate(example.mask[1:]) if supervised]
            targets = mx.array([example.tokens[i + 1] for i in wanted])
            total = total + nn.losses.cross_entropy(logits[mx.array(wanted)], targets, reduction="sum")
            count += len(wanted)
        return total / count

    expected, reference = nn.value_and_grad(learner, full)(learner)
    run = Run(learner, replace(CONFIG, clip_norm=0.0, accumulate=4), examples, examples)
    watched = given(run)
    batches = [collate(examples[i : i + 3]) for i in range(0, len(examples), 3)]
    assert run._update(batches, 1e-3) == pytest.approx(expected.item(), rel=1e-6)
    for name, value in tree_flatten(reference):
        np.testing.assert_allclose(watched.gradients[name], np.array(value), rtol=1e-4, atol=2e-6, err_msg=name)


def test_rows_without_anything_to_learn_change_nothing() -> None:
    silent = Example((1, 300, 301), (False, False, False))
    learner = model(changed=True)
    run = Run(learner, replace(CONFIG, accumulate=2), rows(4), rows(2))
    watched = given(run)
    loss = run._update([collate([silent]), collate(rows(3))], 1e-3)
    expected = float(batch_loss(learner, collate(rows(3))).item())
    assert loss == pytest.approx(expected)
    before = dict(watched.gradients)
    assert run._update([collate([silent])], 1e-3) == 0.0
    assert watched.gradients == before


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_clipping_bounds_the_gradient(clip: float) -> None:
    run = Run(model(changed=True), replace(CONFIG, clip_norm=clip), rows(4), rows(2))
    watched = given(run)
    run._update([collate(rows(4))], 1e-3)
    norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in watched.gradients.values()))
    assert norm == pytest.approx(0.05, rel=1e-3) if clip else norm > 0.1


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion", "muon"])
def test_every_optimizer_learns_at_its_usual_rate(optimizer: Any) -> None:
    config = replace(CONFIG, optimizer=optimizer, epochs=8, learning_rate=2e-3 * RATES[optimizer])
    events = list(train(model(config), config, rows(16), rows(3, 1), lambda best, log: None))
    done = events[-1]
    assert isinstance(done, Trained)
    assert not done.diverged
    assert done.best_loss < 0.7 * done.first_loss


def test_weight_decay_makes_numbers_smaller() -> None:
    norms = []
    for decay in (0.0, 5.0):
        config = replace(CONFIG, weight_decay=decay, epochs=3)
        learner = model(config)
        list(train(learner, config, rows(8), rows(2, 1), lambda best, log: None))
        norms.append(sum(float((v**2).sum()) for n, v in tensors(learner).items() if n.endswith("lora_a")))
    assert norms[1] < 0.9 * norms[0]


def test_lora_plus_gives_b_the_higher_rate() -> None:
    moved = []
    for ratio in (1.0, 16.0):
        learner = model()
        before = tensors(learner)
        stepper = Stepper(learner, replace(CONFIG, lora_plus=ratio, weight_decay=0.0))
        stepper.update(tree_unflatten([(n, mx.ones(v.shape)) for n, v in flat(learner).items()]), 1e-3)
        change = {n: np.abs(v - before[n]).max() for n, v in tensors(learner).items()}
        moved.append([max(c for n, c in change.items() if n.endswith(half)) for half in ("lora_a", "lora_b")])
    assert moved[0] == pytest.approx([1e-3, 1e-3], rel=1e-2)
    assert moved[1] == pytest.approx([1e-3, 16e-3], rel=1e-2)


def test_schedules() -> None:
    def at(step: int, **changes: Any) -> float:
        return learning_rate(replace(CONFIG, learning_rate=1.0, **changes), step, 100)

    assert [at(s, schedule="linear", warmup=0.1) for s in (5, 10, 55, 100)] == pytest.approx([0.5, 1.0, 0.55, 0.1])
    assert [at(s, schedule="constant", warmup=0.1) for s in (5, 10, 55, 100)] == pytest.approx([0.5, 1.0, 1.0, 1.0])
    assert [at(s, schedule="cosine", warmup=0.1) for s in (10, 55, 100)] == pytest.approx([1.0, 0.55, 0.1])
    assert at(1, schedule="constant", warmup=0.0) == 1.0


def test_targets_and_layers_choose_what_is_trained() -> None:
    number = len(model().layers)
    paths = {n.rpartition(".")[0] for n in flat(model(replace(CONFIG, targets=("self_attn.q_proj",), layers=1)))}
    assert paths == {f"model.layers.{number - 1}.self_attn.q_proj"}
    config = replace(CONFIG, targets=("mlp.up_proj", "self_attn.v_proj"))
    assert len(flat(model(config))) == number * 2 * 2
    config = replace(config, layers=1, epochs=2)
    learner = model(config)
    before = tensors(learner)
    list(train(learner, config, rows(8), rows(2, 1), lambda best, log: None))
    assert all(not np.array_equal(v, before[n]) for n, v in tensors(learner).items())


def test_rslora_scales_by_the_root_of_the_rank() -> None:
    assert replace(CONFIG, rank=16, alpha=32.0).scale == 2.0
    assert replace(CONFIG, rank=16, alpha=32.0, rslora=True).scale == 8.0


def test_recomputed_layers_have_the_same_gradients_dropout_included() -> None:
    config, results = replace(CONFIG, dropout=0.2), []
    for recompute in (False, True):
        learner = model(config)
        if recompute:
            recompute_layers(learner)
        noise = mx.random.key(3)
        changed = [(n, mx.random.normal(v.shape, key=noise) * 0.1) for n, v in flat(learner).items()]
        learner.load_weights(changed, strict=False)
        learner.train()
        mx.random.seed(5)
        loss, gradients = nn.value_and_grad(learner, batch_loss)(learner, collate(rows(4)))
        mx.eval(loss, gradients)
        results.append((loss.item(), dict(tree_flatten(gradients)), random_key().tolist()))
    (loss, gradients, key), (loss_again, again, key_again) = results
    assert loss_again == loss
    assert key_again == key
    for name, value in gradients.items():
        np.testing.assert_allclose(np.array(again[name]), np.array(value), rtol=1e-5, atol=1e-7, err_msg=name)


def test_recomputed_layers_hold_less(guide_path: Path) -> None:
    long = collate([Example((1, *([300, 301, 302] * 40)), (False,) * 119 + (True,) * 2)] * 4)
    peaks = []
    for recompute in (False, True):
        learner = load_model(read_header(guide_path), "float32")
        attach(learner, 4, 8.0)
        if recompute:
            recompute_layers(learner)
        learner.train()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(nn.value_and_grad(learner, batch_loss)(learner, long))
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 0.6 * peaks[0]  # of 6 layers


def test_a_loss_that_explodes_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def exploding(m: Any, batch: Any, of: int | None = None) -> mx.array:
        calls.append(1)
        return batch_loss(m, batch, of) * (10.0 if len(calls) > 10 else 1.0)

    monkeypatch.setattr(loop, "batch_loss", exploding)
    monkeypatch.setattr(loop, "evaluate", lambda *_: 5.0)
    config = replace(CONFIG, epochs=20, learning_rate=1e-6)
    kept: list[Any] = []
    events = list(train(model(config), config, rows(8), rows(2, 1), lambda best, log: kept.append(best)))
    assert events[-1].diverged
    assert 12 <= events[-1].steps <= 18
    assert kept
    assert any(isinstance(e, Warned) and "smaller --learning-rate" in e.message for e in events)


def test_the_key_that_a_run_stands_at_is_whole() -> None:
    set_random_key(np.array([2**32 - 1, 7], np.uint32))
    assert random_key().tolist() == [2**32 - 1, 7]
