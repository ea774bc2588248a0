"""Adapters as GGUF LoRAs and back: names, orientation, row order, scale, fused tensors, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localllm.engine.adapters import check_adapter
from localllm.errors import AdapterError, AdapterMismatchError
from localllm.weights.adapter import Adapter
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.lora import check_fit, gguf_tensors, read_gguf, write_gguf
from localllm.weights.names import EMBEDDING, OUTPUT, modules
from localllm.weights.quant import dequantize, read_blocks
from tests.weights.bases import base, delta, pair
from tests.weights.oracle import oracle

Q, K, V, DOWN = (
    f"model.layers.{n}" for n in ("0.self_attn.q_proj", "0.self_attn.k_proj", "0.self_attn.v_proj", "1.mlp.down_proj")
)
ALPHA = 6.0


def on(file: GGUFFile, paths: list[str], ranks: list[int]) -> Adapter:
    """A random adapter on those modules, each of its own rank."""
    slots = modules(file)
    layers = {
        path: pair(slots[path].shape, rank, seed, embedding=path == EMBEDDING)
        for seed, (path, rank) in enumerate(zip(paths, ranks, strict=True))
    }
    return Adapter(max(ranks), ALPHA, layers)


def what_llama_cpp_adds(path: Path) -> dict[str, np.ndarray]:
    """Change of each base tensor by the rule of llama.cpp: user scale 1, alpha / rank of the pair."""
    file = read_header(path)
    alpha = file.metadata["adapter.lora.alpha"]
    assert isinstance(alpha, float)

    def values(name: str) -> np.ndarray:
        info = file.tensors[name]
        return dequantize(read_blocks(file, info), info.type, info.shape).astype(np.float64)

    found = {}
    for name in {name.rpartition(".")[0] for name in file.tensors}:
        a, b = values(f"{name}.lora_a"), values(f"{name}.lora_b")
        product = a @ b.T if name == "token_embd.weight" else b @ a
        found[name] = product * (alpha / b.shape[-1])
    return found


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp's converter puts those of q and k."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def same(adapter: Adapter, again: Adapter) -> None:
    """Same layers, ranks and changes."""
    assert set(again.layers) == set(adapter.layers)
    for path, (a, b) in adapter.layers.items():
        ours, theirs = delta(a, b, embedding=path == EMBEDDING), delta(*again.layers[path], embedding=path == EMBEDDING)
        assert again.layers[path][0].shape == a.shape
        np.testing.assert_allclose(again.scale * theirs, adapter.scale * ours, rtol=1e-5, atol=1e-5)


def test_every_kind_of_layer_has_its_rank_scale_and_orientation(tmp_path: Path) -> None:
    file = base(tmp_path / "base.gguf", "qwen3moe")
    gate = "model.layers.1.mlp.switch_mlp.gate_proj"
    adapter = on(file, [Q, gate, EMBEDDING, OUTPUT, "model.layers.0.mlp.gate"], [4, 3, 2, 5, 1])
    write_gguf(
        tmp_path / "a.gguf", adapter, file, {"localllm.base.sha256": "00", "localllm.rows": 3, "localllm.x": 0.5}
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "base.gguf"]
    header = read_header(tmp_path / "a.gguf")
    assert (header.kind, header.architecture, header.metadata["adapter.lora.alpha"]) == ("adapter", "qwen3moe", ALPHA)
    assert header.metadata["localllm.rows"] == 3
    check_adapter(tmp_path / "a.gguf", file)
    added = what_llama_cpp_adds(tmp_path / "a.gguf")
    slots = modules(file)
    assert set(added) == {slots[path].tensor for path in adapter.layers}
    for path, (a, b) in adapter.layers.items():
        expected = ALPHA / 5 * delta(a, b, embedding=path == EMBEDDING)
        np.testing.assert_allclose(added[slots[path].tensor], expected, rtol=1e-5, atol=1e-5)
    same(adapter, read_gguf(tmp_path / "a.gguf", file))


def test_rows_of_b_follow_the_base(tmp_path: Path) -> None:
    file = base(tmp_path / "base.gguf")
    adapter = on(file, [Q, K, V], [4, 4, 4])
    write_gguf(tmp_path / "a.gguf", adapter, file, {})
    added = what_llama_cpp_adds(tmp_path / "a.gguf")
    for path, name, heads in ((Q, "attn_q", 4), (K, "attn_k", 2)):
        expected = interleaved(ALPHA / 4 * delta(*adapter.layers[path]), heads)
        np.testing.assert_allclose(added[f"blk.0.{name}.weight"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        added["blk.0.attn_v.weight"], ALPHA / 4 * delta(*adapter.layers[V]), rtol=1e-5, atol=1e-5
    )
    again = read_gguf(tmp_path / "a.gguf", file)
    assert all(
        np.array_equal(x, y)
        for path in adapter.layers
        for x, y in zip(adapter.layers[path], again.layers[path], strict=True)
    )


@pytest.mark.parametrize("paths", [[Q, K, V], [K], [V, Q]])
def test_a_fused_base_gets_one_pair_and_gives_the_modules_back(tmp_path: Path, paths: list[str]) -> None:
    file, apart = base(tmp_path / "fused.gguf", fused=True), base(tmp_path / "apart.gguf")
    adapter = on(file, paths, [4, 2, 3][: len(paths)])
    write_gguf(tmp_path / "a.gguf", adapter, file, {})
    write_gguf(tmp_path / "b.gguf", adapter, apart, {})
    check_adapter(tmp_path / "a.gguf", file)
    (added,) = what_llama_cpp_adds(tmp_path / "a.gguf").values()
    unfused = what_llama_cpp_adds(tmp_path / "b.gguf")
    zeros = {"attn_q": np.zeros((32, 32)), "attn_k": np.zeros((16, 32)), "attn_v": np.zeros((16, 32))}
    expected = np.concatenate([unfused.get(f"blk.0.{name}.weight", zero) for name, zero in zeros.items()])
    np.testing.assert_allclose(added, expected, rtol=1e-5, atol=1e-5)
    same(adapter, read_gguf(tmp_path / "a.gguf", file))


def test_the_fused_matrices_of_phi3_are_modules(tmp_path: Path) -> None:
    file = base(tmp_path / "base.gguf", "phi3")
    adapter = on(file, ["model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj"], [2, 2])
    write_gguf(tmp_path / "a.gguf", adapter, file, {})
    assert set(read_header(tmp_path / "a.gguf").tensors) == {
        f"blk.{name}.weight.lora_{half}" for name in ("0.attn_qkv", "1.ffn_up") for half in "ab"
    }
    same(adapter, read_gguf(tmp_path / "a.gguf", file))


def test_row_order_matches_the_converter_of_llama_cpp() -> None:
    from safetensors.numpy import load_file

    path = oracle("llama-f16.gguf")
    file = read_header(path)
    original = load_file(path.parent / "llama" / "model.safetensors")
    slots = modules(file)
    for module in ("self_attn.q_proj", "self_attn.k_proj"):
        slot = slots[f"model.layers.0.{module}"]
        info = file.tensors[slot.tensor]
        stored = read_blocks(file, info).reshape(-1).view(np.float16).reshape(info.shape)
        expected = original[f"model.layers.0.{module}.weight"].astype(np.float16)
        assert slot.order is not None
        assert np.array_equal(stored, expected[slot.order])
    assert slots[V].order is None


def test_an_adapter_that_does_not_fit_says_which_module_and_both_shapes(tmp_path: Path) -> None:
    file = base(tmp_path / "base.gguf")
    a, b = on(file, [Q], [4]).layers[Q]
    with pytest.raises(AdapterMismatchError, match=r"q_proj is for a matrix of \(30, 32\).*attn_q.*\(32, 32\)"):
        gguf_tensors(Adapter(4, 8.0, {Q: (a, b[:, :30])}), file)
    with pytest.raises(AdapterMismatchError, match=r"changes model\.layers\.7\.self_attn\.q_proj, which"):
        check_fit(Adapter(4, 8.0, {Q.replace("0", "7"): (a, b)}), file)
    write_gguf(tmp_path / "a.gguf", on(file, [DOWN], [4]), file, {})
    with pytest.raises(AdapterMismatchError, match=r"blk\.1\.ffn_down\.weight, which is not a matrix"):
        read_gguf(tmp_path / "a.gguf", base(tmp_path / "moe.gguf", "qwen3moe"))


def test_a_shared_embedding_is_refused_and_the_merge_offered(tmp_path: Path) -> None:
    tied, untied = base(tmp_path / "tied.gguf", tied=True), base(tmp_path / "untied.gguf")
    with pytest.raises(AdapterError, match=r"shares with its output.*--to merged"):
        write_gguf(tmp_path / "a.gguf", on(tied, [EMBEDDING, Q], [2, 2]), tied, {})
    assert not (tmp_path / "a.gguf").exists()
    with pytest.raises(
        AdapterMismatchError, match=r"lm_head, which .* does not have .its output is its token embedding"
    ):
        check_fit(on(untied, [OUTPUT], [2]), tied)


def test_without_alpha_the_scale_is_one(tmp_path: Path) -> None:
    """As in llama.cpp, where alpha 0 means that there is none."""
    import gguf

    file = base(tmp_path / "base.gguf", "qwen3")
    adapter = on(file, [Q], [4])
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "qwen3")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    for name, tensor in gguf_tensors(adapter, file).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_adapter(tmp_path / "a.gguf", file)
    assert read_gguf(tmp_path / "a.gguf", file).scale == 1.0
