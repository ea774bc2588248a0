"""Activations made of sums and products against those of mlx-lm's own classes."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.activations import gelu_approx
from mlx.nn.layers.activations import silu as mlx_silu
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten

from localllm.data.batches import collate
from localllm.tune.activations import exp, gelu, gelu_times, silu, silu_times, vectorize_activations
from localllm.tune.load import load_model
from localllm.tune.lora import attach
from localllm.tune.loss import batch_loss
from localllm.tune.recompute import recompute_layers
from localllm.types import Example
from localllm.weights.gguf import read_header
from tests.weights.oracle import fixture


@pytest.mark.parametrize("ours,theirs", [(silu, mlx_silu), (gelu, gelu_approx)])
def test_functions_and_gradients_are_those_of_mlx(ours: object, theirs: object) -> None:
    x = mx.concatenate([mx.random.normal((7, 300)).reshape(-1) * 4, mx.array([0.0, -90.0, 90.0, -1e4, 1e4])])
    for function in (lambda f: f(x), lambda f: mx.grad(lambda v: f(v).sum())(x)):
        np.testing.assert_allclose(np.array(function(ours)), np.array(function(theirs)), rtol=1e-5, atol=5e-6)


def test_exponentials_are_those_of_numpy() -> None:
    x = np.concatenate([np.random.default_rng(1).uniform(-87, 87, 5000), [0.0, -1.0, 1.0]]).astype(np.float32)
    np.testing.assert_allclose(np.array(exp(mx.array(x))), np.exp(x.astype(np.float64)), rtol=4e-6)
    np.testing.assert_allclose(np.array(mx.grad(lambda v: exp(v).sum())(mx.array(x[:9]))), np.exp(x[:9]), rtol=4e-6)
    assert 0 < float(exp(mx.array(-1e30))) < 2e-38


@pytest.mark.parametrize("ours,theirs", [(silu_times, mlx_silu), (gelu_times, gelu_approx)])
def test_a_gate_times_what_passes_it(ours: object, theirs: object) -> None:
    gate, up, weights = (mx.random.normal((7, 30)) * 3 for _ in range(3))
    found = mx.value_and_grad(lambda g, u: (weights * ours(g, u)).sum(), argnums=(0, 1))(gate, up)
    expected = mx.value_and_grad(lambda g, u: (weights * theirs(g) * u).sum(), argnums=(0, 1))(gate, up)
    np.testing.assert_allclose(found[0].item(), expected[0].item(), rtol=1e-5)
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi3", "qwen3moe"])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_model_learns_the_same(name: str, recompute: bool) -> None:
    model = load_model(read_header(fixture(name)), "float32")
    if recompute:
        recompute_layers(model)
    attach(model, 4, 8.0, targets=("self_attn.o_proj",))
    rng = np.random.default_rng(1)
    batch = collate([Example(tuple(rng.integers(3, 200, 24).tolist()), (False,) * 8 + (True,) * 16) for _ in range(3)])
    before = value_and_grad(model, batch_loss)(model, batch)
    classes = [type(layer.mlp) for layer in model.layers]
    vectorize_activations(model)
    assert (classes == [type(layer.mlp) for layer in model.layers]) is (name == "qwen3moe")
    after = value_and_grad(model, batch_loss)(model, batch)
    np.testing.assert_allclose(after[0].item(), before[0].item(), rtol=1e-6)
    for (path, found), (_, expected) in zip(tree_flatten(after[1]), tree_flatten(before[1]), strict=True):
        scale = float(mx.abs(expected).max())
        np.testing.assert_allclose(np.array(found), np.array(expected), rtol=0, atol=1e-5 * scale, err_msg=path)
