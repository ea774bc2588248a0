"""PEFT's adapter folders against golden ones that PEFT wrote and llama.cpp's converter converted; see
scripts/make_adapters.py, which makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from localllm.engine.adapters import check_adapter
from localllm.errors import AdapterError, AdapterMismatchError
from localllm.weights import peft
from localllm.weights.adapter import Adapter
from localllm.weights.gguf import read_header
from localllm.weights.lora import check_fit, gguf_tensors, read_gguf
from localllm.weights.names import EMBEDDING, modules
from localllm.weights.quant import dequantize, read_blocks
from tests.weights.bases import base, delta, pair

GOLDEN = Path(__file__).parent / "adapters"
NAMES = ("llama-plain", "llama-patterns", "llama-ends", "qwen3-rslora")
Q = "model.layers.0.self_attn.q_proj"
UP = "model.layers.1.mlp.experts.{}.up_proj"


def golden(name: str) -> tuple[Adapter, Any, dict[str, np.ndarray], float]:
    """PEFT's folder as ours, its base, and llama.cpp's conversion of it with its alpha."""
    file = read_header(GOLDEN / f"{name.partition('-')[0]}.gguf")
    adapter, notes = peft.read(GOLDEN / name, file)
    assert notes == []
    converted = read_header(GOLDEN / name / "adapter.gguf")
    check_adapter(converted.path, file)
    theirs = {n: dequantize(read_blocks(converted, i), i.type, i.shape) for n, i in converted.tensors.items()}
    alpha = converted.metadata["adapter.lora.alpha"]
    assert isinstance(alpha, float)
    return adapter, file, theirs, alpha


@pytest.mark.parametrize("name", ["llama-plain", "llama-ends"])
def test_one_rank_and_alpha_are_llama_cpp_s_conversion_bit_for_bit(name: str) -> None:
    adapter, file, theirs, alpha = golden(name)
    ours = gguf_tensors(adapter, file)
    assert set(ours) == set(theirs)
    assert adapter.alpha == alpha
    for tensor, values in ours.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, theirs[tensor]), tensor


def test_patterns_differ_from_llama_cpp_s_conversion_by_what_it_leaves_out() -> None:
    """It divides one alpha by the rank of each tensor, as rank_pattern asks, and does not read alpha_pattern."""
    adapter, file, theirs, alpha = golden("llama-patterns")
    ours = gguf_tensors(adapter, file)
    assert set(ours) == set(theirs)
    alphas = {"blk.0.attn_k": 3, "blk.1.attn_k": 3, "blk.1.attn_v": 16}
    assert adapter.rank == 6
    for tensor, values in ours.items():
        if tensor.endswith("lora_a"):
            assert np.array_equal(values, theirs[tensor])
        else:
            factor = alphas.get(tensor.removesuffix(".weight.lora_b"), 8) / adapter.alpha
            np.testing.assert_allclose(values, factor * theirs[tensor], rtol=3e-7)
    assert alpha == 8


def test_rank_stabilized_scaling_is_in_alpha() -> None:
    """The conversion takes alpha / rank for alpha / sqrt(rank): our alpha is sqrt(rank) times its own."""
    adapter, file, theirs, alpha = golden("qwen3-rslora")
    ours = gguf_tensors(adapter, file)
    assert set(ours) == set(theirs)
    assert all(np.array_equal(values, theirs[tensor]) for tensor, values in ours.items())
    assert (adapter.alpha, alpha) == (16.0, 8.0)


@pytest.mark.parametrize("name", NAMES)
def test_what_we_write_has_peft_s_names_and_numbers(tmp_path: Path, name: str) -> None:
    adapter, file, _, _ = golden(name)
    peft.write(tmp_path, adapter, file)
    ours, theirs = load_file(tmp_path / peft.WEIGHTS), load_file(GOLDEN / name / peft.WEIGHTS)
    assert set(ours) == {n for n in theirs if "base_layer" not in n}
    assert all(ours[n].shape == theirs[n].shape for n in ours)
    if name != "llama-patterns":
        assert all(np.array_equal(ours[n], theirs[n]) for n in ours)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["alpha_pattern"] == {}, "llama.cpp's converter does not read it"
    original = json.loads((GOLDEN / name / "adapter_config.json").read_text())
    assert config["target_modules"] == original["target_modules"]
    assert str(tmp_path) not in json.dumps(config)
    again, _ = peft.read(tmp_path, file)
    for path, (a, b) in adapter.layers.items():
        x, y = (delta(*p, embedding=path == EMBEDDING) for p in (again.layers[path], (a, b)))
        np.testing.assert_allclose(again.scale * x, adapter.scale * y, rtol=1e-5, atol=1e-6)
        assert again.layers[path][0].shape == a.shape


def test_llama_cpp_s_conversion_comes_back_as_peft_s_numbers() -> None:
    for name in ("llama-plain", "llama-ends"):
        adapter, file, _, _ = golden(name)
        again = read_gguf(GOLDEN / name / "adapter.gguf", file)
        assert (again.rank, again.alpha) == (adapter.rank, adapter.alpha)
        assert set(again.layers) == set(adapter.layers)
        for path, both in adapter.layers.items():
            assert all(np.array_equal(x, y) for x, y in zip(both, again.layers[path], strict=True)), path


def test_some_layers_only_are_named_in_full(tmp_path: Path) -> None:
    file = base(tmp_path / "base.gguf")
    peft.write(tmp_path, Adapter(2, 4.0, {Q: pair((32, 32), 2, 0)}), file)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == [Q]
    assert (config["r"], config["lora_alpha"]) == (2, 4)


def folder(path: Path, config: dict[str, Any], tensors: dict[str, np.ndarray] | None = None) -> Path:
    """A folder as PEFT writes it, rank 4 on one module."""
    path.mkdir(exist_ok=True)
    a, b = pair((32, 32), 4, 0)
    default = {f"{peft.PREFIX}{Q}.lora_A.weight": a.T.copy(), f"{peft.PREFIX}{Q}.lora_B.weight": b.T.copy()}
    save_file(default if tensors is None else tensors, path / peft.WEIGHTS)
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, **config}))
    return path


@pytest.mark.parametrize(
    "config, problem",
    [
        ({"peft_type": "IA3"}, "the method IA3; only LORA"),
        ({"use_dora": True}, "is a DoRA"),
        ({"bias": "lora_only"}, "changes biases .bias: lora_only"),
        ({"lora_bias": True}, "has biases of its own"),
        ({"modules_to_save": ["lm_head", "score"]}, r"replaces whole modules \(lm_head, score\)"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, r"no modules \(mlp\.experts\.gate_up_proj\)"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "repeats layers"),
        ({"fan_in_fan_out": True}, "transposed weights"),
        ({"trainable_token_indices": [1]}, "rows of the embedding"),
        ({"alora_invocation_tokens": [1]}, "activated LoRA"),
        ({"init_lora_weights": "pissa_niter_16"}, "began as pissa_niter_16, which changes the base model"),
        ({"lora_alpha": "8"}, "8 as its lora_alpha"),
        ({"alpha_pattern": {"q_proj": float("inf")}}, "inf as its alpha_pattern"),
        ({"alpha_pattern": {"(a+)+": 1}}, r"'\(a\+\)\+' in its alpha_pattern, which is too intricate"),
        ({"alpha_pattern": {"(": 1}}, "too intricate"),
        ({"alpha_pattern": {".*.*.*x": 1}}, "too intricate"),
        ({"alpha_pattern": ["q_proj"]}, "is no map"),
    ],
)
def test_what_is_no_plain_lora_is_refused_with_the_reason(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    with pytest.raises(AdapterError, match=problem):
        peft.read(folder(tmp_path / "a", config), base(tmp_path / "base.gguf"))


def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path: Path) -> None:
    where = folder(tmp_path / "a", {})
    (where / peft.WEIGHTS).rename(where / peft.PICKLE)
    (where / peft.PICKLE).chmod(0)
    with pytest.raises(AdapterError, match=r"adapter_model\.bin is a pickle"):
        peft.read(where, base(tmp_path / "base.gguf"))
    (where / peft.PICKLE).unlink()
    with pytest.raises(AdapterError, match=r"has no adapter_model\.safetensors"):
        peft.read(where, base(tmp_path / "base.gguf"))


@pytest.mark.parametrize(
    "names, problem",
    [
        ([f"{Q}.lora_A.weight"], "lora_A of .*q_proj without its other half"),
        ([f"{Q}.bias"], r"q_proj\.bias, which is not a LoRA matrix"),
        (["model.layers.9.x.lora_A.weight", "model.layers.9.x.lora_B.weight"], r"changes model\.layers\.9\.x, which"),
        (["model.embed_tokens.lora_A.weight", "model.embed_tokens.lora_B.weight"], "not how PEFT keeps that"),
        (
            [f"{EMBEDDING}.base_layer.weight"],
            r"base_layer\.weight of shape \(4, 4\), but token_embd\.weight has \(40, 32\)",
        ),
    ],
)
def test_tensors_that_do_not_belong_are_named(tmp_path: Path, names: list[str], problem: str) -> None:
    tensors = {peft.PREFIX + name: np.ones((4, 4), np.float32) for name in names}
    with pytest.raises(AdapterError, match=problem):
        peft.read(folder(tmp_path / "a", {}, tensors), base(tmp_path / "base.gguf"))


@pytest.mark.parametrize("inside", ["model.language_model.layers", "language_model.model.layers"])
def test_the_text_model_of_one_that_sees_is_found_inside_it(tmp_path: Path, inside: str) -> None:
    file = base(tmp_path / "base.gguf", "gemma3")
    a, b = pair((32, 32), 4, 0)
    name = f"{peft.PREFIX}{inside}.0.self_attn.q_proj.lora_"
    tensors = {f"{name}A.weight": a.T.copy(), f"{name}B.weight": b.T.copy()}
    adapter, _ = peft.read(folder(tmp_path / "a", {}, tensors), file)
    assert list(adapter.layers) == [Q]
    tower = {name.replace(inside, "model.vision_tower.layers"): value for name, value in tensors.items()}
    with pytest.raises(AdapterMismatchError, match=r"changes model\.vision_tower\.layers"):
        peft.read(folder(tmp_path / "a", {}, tensors | tower), file)


def test_experts_are_stacked_when_all_are_there(tmp_path: Path) -> None:
    file = base(tmp_path / "base.gguf", "qwen3moe")
    rng, tensors, expected = np.random.default_rng(0), {}, []
    for n, rank in enumerate((4, 2, 4)):
        a, b = (rng.standard_normal(s, dtype=np.float32) for s in ((rank, 32), (48, rank)))
        name = peft.PREFIX + UP.format(n)
        tensors |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        expected.append(8 / rank * b.astype(np.float64) @ a)
    adapter, _ = peft.read(folder(tmp_path / "a", {}, tensors), file)
    (path,) = check_fit(adapter, file)
    assert path == "model.layers.1.mlp.switch_mlp.up_proj"
    np.testing.assert_allclose(adapter.scale * delta(*adapter.layers[path]), np.stack(expected), rtol=1e-5, atol=1e-5)
    with pytest.raises(AdapterError, match="no LoRA for experts"):
        peft.write(tmp_path, adapter, file)
    lacking = {name: value for name, value in tensors.items() if ".1.up_proj" not in name}
    with pytest.raises(AdapterError, match=r"only 2 of 3 experts of .*up_proj: 1 are missing"):
        peft.read(folder(tmp_path / "a", {}, lacking), file)
    wrong = {**tensors, f"{peft.PREFIX}{UP.format(2)}.lora_A.weight": np.ones((4, 30), np.float32)}
    with pytest.raises(AdapterMismatchError, match=r"\(4, 30\) and \(48, 4\) for expert 2, but .* \(3, 48, 32\)"):
        peft.read(folder(tmp_path / "a", {}, wrong), file)


def test_an_embedding_that_is_the_output_needs_peft_s_word_that_both_are_adapted(tmp_path: Path) -> None:
    file = base(tmp_path / "base.gguf", tied=True)
    a, b = pair((40, 32), 4, 0, embedding=True)
    name = f"{peft.PREFIX}{EMBEDDING}.lora_embedding_"
    tensors = {f"{name}A": a.T.copy(), f"{name}B": b.T.copy()}
    output = {f"{peft.PREFIX}lm_head.lora_A.weight": b.copy(), f"{peft.PREFIX}lm_head.lora_B.weight": a.copy()}
    with pytest.raises(AdapterError, match="changes the token embedding alone"):
        peft.read(folder(tmp_path / "a", {}, tensors), file)
    adapter, _ = peft.read(folder(tmp_path / "a", {"ensure_weight_tying": True}, tensors | output), file)
    assert list(adapter.layers) == [EMBEDDING]
    assert np.array_equal(adapter.layers[EMBEDDING][0], a)
    peft.write(tmp_path, adapter, file)
    written = load_file(tmp_path / peft.WEIGHTS)
    assert set(written) == set(tensors | output)
    assert all(np.array_equal(written[name], value) for name, value in (tensors | output).items())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["ensure_weight_tying"] is True
    assert config["target_modules"] == ["embed_tokens", "lm_head"]


def test_peft_s_names_are_mlx_s_for_every_module(tmp_path: Path) -> None:
    """Fused ones of phi3 included: what is adapted everywhere is written with the last parts of the names."""
    file = base(tmp_path / "base.gguf", "phi3")
    slots = {path: slot for path, slot in modules(file).items() if path.endswith("_proj")}
    adapter = Adapter(2, 4.0, {path: pair(slot.shape, 2, 0) for path, slot in slots.items()})
    peft.write(tmp_path, adapter, file)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_up_proj", "o_proj", "qkv_proj"]
    again, _ = peft.read(tmp_path, file)
    assert set(again.layers) == set(adapter.layers)
