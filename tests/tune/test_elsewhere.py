"""Adapters from and for other programs, by their logits: PEFT's golden ones, and mlx-lm reading what we export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from localllm.tune.load import load_model
from localllm.tune.lora import attach_adapter, detached
from localllm.weights import mlx_lm, peft
from localllm.weights.adapter import Adapter
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.lora import read_gguf, write_gguf
from localllm.weights.names import EMBEDDING, modules
from tests.weights.bases import pair
from tests.weights.oracle import fixture, oracle

GOLDEN = Path(__file__).parents[1] / "weights/adapters"
TOKENS = np.random.default_rng(0).integers(3, 300, 32)
CLOSE = 1e-4
"""Between logits of up to 6, from two programs in float32; the largest difference seen was 1.8e-5."""


def logits(model: Any, tokens: np.ndarray = TOKENS) -> np.ndarray:
    return np.array(model(mx.array(tokens[None]))[0].astype(mx.float32))


def everywhere(file: GGUFFile) -> Adapter:
    """On every matrix, the embedding included, in ranks that differ."""
    layers = {}
    for number, (path, slot) in enumerate(modules(file).items()):
        a, b = pair(slot.shape, 1 + number % 4, number, embedding=path == EMBEDDING)
        layers[path] = (a * np.float32(0.1), b * np.float32(0.1))
    return Adapter(4, 4.0, layers)


@pytest.mark.parametrize("name", ["llama-plain", "llama-patterns", "llama-ends", "qwen3-rslora"])
def test_peft_s_adapters_give_peft_s_logits(tmp_path: Path, name: str) -> None:
    """As they are read, and after the way through a GGUF LoRA."""
    file = read_header(GOLDEN / f"{name.partition('-')[0]}.gguf")
    golden = np.load(GOLDEN / name / "logits.npz", allow_pickle=False)
    adapter, _ = peft.read(GOLDEN / name, file)
    write_gguf(tmp_path / "a.gguf", adapter, file, {})
    for read in (adapter, read_gguf(tmp_path / "a.gguf", file)):
        model = load_model(file, "float32")
        np.testing.assert_allclose(logits(model, golden["tokens"]), golden["base"], atol=CLOSE)
        attach_adapter(model, read)
        np.testing.assert_allclose(logits(model, golden["tokens"]), golden["adapted"], atol=CLOSE)
    assert np.abs(golden["adapted"] - golden["base"]).max() > 1


@pytest.mark.parametrize("name", ["llama-fused", "qwen3moe", "phi3", "gemma2"])
def test_mlx_lm_reads_our_export_as_we_do(tmp_path: Path, name: str) -> None:
    """Its own code puts the exported folder into the same model: experts, router, embedding, ranks that differ."""
    from mlx_lm.tuner.utils import load_adapters

    file = read_header(fixture(name))
    adapter = everywhere(file)
    mlx_lm.write(tmp_path, adapter)
    ours, theirs = load_model(file, "float32"), load_model(file, "float32")
    attach_adapter(ours, adapter)
    load_adapters(theirs, str(tmp_path))
    theirs.eval()
    np.testing.assert_allclose(logits(theirs), logits(ours), atol=CLOSE)
    with detached(ours):
        assert np.abs(logits(theirs) - logits(ours)).max() > 0.1


def test_mlx_lm_loads_a_model_of_hugging_face_with_our_export(tmp_path: Path) -> None:
    import mlx_lm as package

    path = oracle("llama-f16.gguf")
    file = read_header(path)
    adapter = everywhere(file)
    mlx_lm.write(tmp_path, adapter)
    theirs: Any = package.load(str(path.parent / "llama"), adapter_path=str(tmp_path))[0]
    theirs.set_dtype(mx.float32)
    ours = load_model(file, "float32")
    attach_adapter(ours, adapter)
    np.testing.assert_allclose(logits(theirs), logits(ours), atol=CLOSE)
