"""Every architecture can be trained from its 4-bit file, and decodes with a cache what it computes at once."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten

from localllm.data.batches import collate
from localllm.evaluate.agreement import kl, log_softmax
from localllm.tune.load import load_model
from localllm.tune.lora import attach, attach_adapter, extract
from localllm.tune.loss import batch_loss, hidden_states, to_logits
from localllm.types import Example
from localllm.weights.architectures import entry
from localllm.weights.gguf import read_header
from tests.tune.test_load import MODELS, random_adapter
from tests.weights.oracle import fixture

BATCH = collate([Example((7, *([300, 301, 302] * 8)[:n]), (False,) * 2 + (True,) * (n - 1)) for n in (9, 14)])


def gradients(model: Any) -> dict[str, mx.array]:
    _, found = value_and_grad(model, batch_loss)(model, BATCH)
    flat: list[tuple[str, mx.array]] = tree_flatten(found)  # type: ignore[assignment]
    return dict(flat)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("residence", ["float32", "quantized"])
def test_a_few_steps_lower_the_loss(name: str, residence: Any) -> None:
    file = read_header(fixture(name))
    model = load_model(file, residence)
    targets = entry(file.architecture).trained
    attach(model, rank=4, alpha=8.0, seed=1, targets=targets)
    optimizer, step = optim.AdamW(5e-3), value_and_grad(model, batch_loss)
    losses = []
    for _ in range(6):
        loss, found = step(model, BATCH)
        optimizer.update(model, found)
        mx.eval(loss, model.trainable_parameters())
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    changed = extract(model, 4, 8.0).layers
    assert all(np.abs(b).max() > 0 for _, b in changed.values())
    wanted = set(targets or entry(file.architecture).modules)
    assert {path.split(".", 3)[3] for path in changed} == wanted


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_every_matrix_of_an_adapter(name: str) -> None:
    """Experts, their router, the embedding and the output too, where an adapter that was imported has them."""
    adapter = random_adapter(fixture(name))
    model = load_model(read_header(fixture(name)), "float32")
    attach_adapter(model, adapter)
    found = gradients(model)
    assert found.keys() == adapter.tensors().keys()
    assert all(float(mx.abs(value).max().item()) > 0 for value in found.values())


@pytest.mark.parametrize("name", MODELS)
def test_chunked_logits_are_those_of_the_whole_model(name: str) -> None:
    model = load_model(read_header(fixture(name)), "float32")
    tokens = mx.array([[5, 6, 7, 8, 9]])
    apart = to_logits(model, hidden_states(model, tokens)[0])
    assert np.allclose(np.array(apart), np.array(model(tokens)[0]), atol=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "olmo3", "llama3", "phi3-longrope"])
def test_decoding_with_a_cache_gives_the_same(name: str) -> None:
    from mlx_lm.models.cache import make_prompt_cache

    model = load_model(read_header(fixture(name)), "float32")
    tokens = [int(t) for t in np.random.default_rng(3).integers(3, 500, 100)]
    whole = log_softmax(np.array(model(mx.array([tokens])))[0])
    cache = make_prompt_cache(model)
    parts = [model(mx.array([tokens[:60]]), cache=cache)]
    parts += [model(mx.array([[token]]), cache=cache) for token in tokens[60:]]
    assert kl(log_softmax(np.array(mx.concatenate(parts, axis=1))[0]), whole) < 1e-9
