"""The adapter folder round trip, and the GGUF LoRA's names, shapes, row order and metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from localllm.errors import AdapterError, AdapterMismatchError, UnsupportedModelError
from localllm.weights.adapter import CONFIG, Adapter, read_folder, write_folder
from localllm.weights.gguf import read_header
from localllm.weights.lora import gguf_tensors, write_gguf
from localllm.weights.names import architecture_of, model_config, row_order
from localllm.weights.quant import dequantize, read_blocks
from tests.weights.oracle import oracle

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"


def random_adapter(rank: int = 4) -> Adapter:
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.standard_normal((rows, columns), dtype=np.float32)

    return Adapter(rank, 8.0, {Q: (matrix(256, rank), matrix(rank, 256)), V: (matrix(256, rank), matrix(rank, 128))})


def test_the_folder_keeps_an_adapter_and_speaks_mlx_lm(tmp_path: Path) -> None:
    adapter = random_adapter()
    write_folder(tmp_path, adapter)
    again = read_folder(tmp_path)
    assert (again.rank, again.alpha) == (4, 8.0)
    assert all(np.array_equal(again.tensors()[k], v) for k, v in adapter.tensors().items())
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["lora_parameters"]["scale"] == 2.0
    assert config["num_layers"] == 2
    assert config["lora_parameters"]["keys"] == ["self_attn.q_proj", "self_attn.v_proj"]
    with pytest.raises(AdapterError, match="does not hold an adapter"):
        read_folder(tmp_path / "nothing")


def test_gguf_lora_follows_the_row_order_of_the_base(tmp_path: Path) -> None:
    base = read_header(oracle("llama-f16.gguf"))
    adapter = random_adapter()
    metadata = {"localllm.base.sha256": "00", "localllm.rows": 3, "localllm.x": 0.5}
    write_gguf(tmp_path / "a.gguf", adapter, base, metadata)
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]
    header = read_header(tmp_path / "a.gguf")
    assert (header.kind, header.architecture, header.metadata["adapter.lora.alpha"]) == ("adapter", "llama", 8.0)
    assert header.metadata["localllm.rows"] == 3
    stored = {n: dequantize(read_blocks(header, i), i.type, i.shape) for n, i in header.tensors.items()}
    assert stored["blk.0.attn_q.weight.lora_a"].shape == (4, 256)
    assert stored["blk.1.attn_v.weight.lora_b"].shape == (128, 4)
    a, b = adapter.layers[Q]
    # the delta of the weights, permuted by the formula of llama.cpp's converter, 4 heads
    delta = (a @ b).T.reshape(4, 2, 32, 256).swapaxes(1, 2).reshape(256, 256)
    product = stored["blk.0.attn_q.weight.lora_b"] @ stored["blk.0.attn_q.weight.lora_a"]
    np.testing.assert_allclose(product, delta, atol=1e-4)


def test_row_order_matches_the_converter_of_llama_cpp() -> None:
    from safetensors.numpy import load_file

    path = oracle("llama-f16.gguf")
    base = read_header(path)
    original = load_file(path.parent / "llama" / "model.safetensors")
    for module, name in (("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k")):
        order = row_order(base, f"model.layers.0.{module}.weight")
        assert order is not None
        info = base.tensors[f"blk.0.{name}.weight"]
        stored = read_blocks(base, info).reshape(-1).view(np.float16).reshape(info.shape)
        expected = original[f"model.layers.0.{module}.weight"].astype(np.float16)
        assert np.array_equal(stored, expected[order])
    assert row_order(base, "model.layers.0.self_attn.v_proj.weight") is None


def test_an_adapter_that_does_not_fit_says_which_tensor() -> None:
    base = read_header(oracle("llama-f16.gguf"))
    a, b = random_adapter().layers[Q]
    with pytest.raises(AdapterMismatchError, match=r"q_proj is for a matrix of \(250, 256\).*\(256, 256\)"):
        gguf_tensors(Adapter(4, 8.0, {Q: (a, b[:, :250])}), base)


def test_another_architecture_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModelError, match="'qwen2'") as caught:
        architecture_of(read_header(oracle("qwen2-f16.gguf")))
    assert "llama" in caught.value.hint


def test_config_comes_from_metadata() -> None:
    path = oracle("llama-f16.gguf")
    config = model_config(read_header(path))
    original = json.loads((path.parent / "llama" / "config.json").read_text())
    same = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    assert all(config[key] == original[key] for key in (*same, "vocab_size", "tie_word_embeddings"))
