"""Attention written out against MLX's own, alone and inside models of every shape of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten

from localllm.data.batches import collate
from localllm.tune import attention as module
from localllm.tune.attention import attention, vectorize_attention
from localllm.tune.load import load_model
from localllm.tune.lora import attach
from localllm.tune.loss import batch_loss
from localllm.types import Example
from localllm.weights.gguf import read_header
from tests.weights.oracle import fixture

NAMES = ["llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "smollm3", "granite"]
FUNCTION = "scaled_dot_product_attention"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """What was put into mlx-lm's modules is taken out again."""
    yield
    for name, loaded in list(sys.modules.items()):
        if name.startswith("mlx_lm.models."):
            function = getattr(loaded, FUNCTION, None)
            if hasattr(function, "usual"):
                setattr(loaded, FUNCTION, function.usual)


@pytest.mark.parametrize("mask", ["causal", None, "booleans", "numbers"])
@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
def test_values_and_gradients_are_those_of_mlx(mask: str | None, heads: tuple[int, int]) -> None:
    mx.random.seed(1)
    q, k, v = (mx.random.normal((2, n, 17, 8)) * 2 for n in (heads[0], heads[1], heads[1]))
    weights = mx.random.normal(q.shape)
    distance = mx.arange(17)[:, None] - mx.arange(17)
    seen: object = mask
    if mask == "booleans":
        seen = (distance >= 0) & (distance < 5)
    if mask == "numbers":
        seen = mx.where(distance >= 0, 0.1 * distance, -1e9)

    def ours(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return (weights * attention(q, k, v, 0.3, seen)).sum()

    def theirs(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        return (weights * mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=seen)).sum()

    found = mx.value_and_grad(ours, argnums=(0, 1, 2))(q, k, v)
    expected = mx.value_and_grad(theirs, argnums=(0, 1, 2))(q, k, v)
    np.testing.assert_allclose(found[0].item(), expected[0].item(), rtol=1e-5)
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_learns_the_same_with_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(read_header(fixture(name)), "float32")
    attach(model, 4, 8.0, targets=("self_attn.o_proj",))
    rng = np.random.default_rng(1)
    batch = collate([Example(tuple(rng.integers(3, 200, 40).tolist()), (False,) * 8 + (True,) * 32) for _ in range(3)])
    before = value_and_grad(model, batch_loss)(model, batch)
    calls: list[int] = []

    def counted(*args: mx.array) -> mx.array:
        calls.append(1)
        return attention(*args)

    monkeypatch.setattr(module, "attention", counted)
    vectorize_attention(model)
    vectorize_attention(model)  # a second model of the same classes changes nothing
    after = value_and_grad(model, batch_loss)(model, batch)
    assert len(calls) == (0 if name == "gemma2" else len(model.layers))  # Gemma 2 caps scores: a loop of its own
    np.testing.assert_allclose(after[0].item(), before[0].item(), rtol=1e-6)
    for (path, found), (_, expected) in zip(tree_flatten(after[1]), tree_flatten(before[1]), strict=True):
        scale = float(mx.abs(expected).max())
        np.testing.assert_allclose(np.array(found), np.array(expected), rtol=0, atol=2e-5 * scale, err_msg=path)


def test_long_rows_and_a_cache_take_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(read_header(fixture("llama")), "float32")
    vectorize_attention(model)
    states = mx.array([[3, 4, 5, 6, 7, 8]])
    short = np.array(model.model(states))
    monkeypatch.setattr(module, "attention", lambda *_: pytest.fail("the way for short rows was taken"))
    monkeypatch.setattr(module, "MOST_SCORES", 10)
    np.testing.assert_allclose(np.array(model.model(states)), short, atol=1e-5)
