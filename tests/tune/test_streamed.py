"""Weights that are float32 only while they are used give the values and the gradients of those that always are."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from localllm.evaluate.agreement import kl
from localllm.tune import streamed
from localllm.tune.device import residence
from localllm.tune.load import load_model
from localllm.tune.lora import attach_adapter
from localllm.weights.gguf import read_header
from tests.tune.test_architectures import gradients
from tests.tune.test_load import MODELS, in_mlx, random_adapter
from tests.weights.oracle import fixture


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "PIECE", 1 << 14)  # several pieces of every matrix
    file, adapter = read_header(fixture(name)), random_adapter(fixture(name))
    models = [load_model(file, held, mx.float32) for held in ("float32", "streamed")]
    for model in models:
        attach_adapter(model, adapter)
    assert kl(in_mlx(models[0]), in_mlx(models[1])) < 1e-6  # Q6_K is held as float16
    whole, pieces = (gradients(model) for model in models)
    for key, value in whole.items():
        difference = float(mx.abs(value - pieces[key]).max().item())
        assert difference < 2e-2 * float(mx.abs(value).max().item()), key


def test_every_matrix_of_a_layer_stays_in_blocks() -> None:
    model = load_model(read_header(fixture("llama")), "streamed")
    kinds = {type(module).__name__ for _, module in model.layers[0].named_modules() if hasattr(module, "bits")}
    assert kinds == {"StreamedLinear"}
    assert type(model.lm_head).__name__ == "StreamedHalf"  # Q6_K


def test_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(read_header(fixture("llama")), "streamed")
    x = mx.array(np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32))
    layer: Any = model.layers[0].mlp.gate_proj
    whole = np.array(layer(x))
    monkeypatch.setattr(streamed, "PIECE", 256 * 7)  # rows are not a multiple of it
    assert np.allclose(np.array(layer(x)), whole, atol=1e-6)


def test_weights_are_streamed_where_float32_does_not_fit() -> None:
    assert residence("cpu", 10, memory=100) == "float32"
    assert residence("cpu", 51, memory=100) == "streamed"
    assert residence("metal", 51, memory=100) == residence("cuda", 51, memory=100) == "quantized"
