"""Merging: the merged file answers like base and adapter together, and keeps every byte that no adapter touches."""

from __future__ import annotations

import os
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.engine.quantize import quantize_chunk, quantize_model
from localllm.errors import (
    UnsupportedModelError,
)
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.weights.gguf import read_header
from localllm.weights.writer import Replacement, copy_gguf
from tests.tasks.merge_support import GUIDE, as_f32, importance, logits, lora, raw, run, tensor
from tests.weights.oracle import fixture


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


def agrees(merged: np.ndarray, attached: np.ndarray, base: np.ndarray) -> None:
    """In float32 a product with W + s B A and one with W and then s B A differ by rounding alone."""
    size = np.abs(attached).max()
    assert np.abs(attached - base).max() > 0.1 * size  # the adapters do something
    assert np.abs(merged - attached).max() < 2e-5 * size


def test_the_merged_model_answers_like_base_and_adapters(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = as_f32(guide_path, tmp_path)
    first = lora(tmp_path / "first.gguf", base, GUIDE)
    second = lora(tmp_path / "another.gguf", base, GUIDE[1:3], rank=2)
    adapters = [(first, 1.0), (second, -0.5)]
    merged = run(registry, base.path, adapters, tmp_path / "merged.gguf")
    agrees(logits(merged.path), logits(base.path, *adapters), logits(base.path))
    assert (merged.changed, merged.bytes) == (4, merged.path.stat().st_size)
    assert merged.kept == pytest.approx(1, abs=1e-4)
    assert merged.cosine == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen3moe"])
def test_converted_models_and_stacks_of_experts(registry: Registry, name: str, tmp_path: Path) -> None:
    base = as_f32(fixture(name), tmp_path)
    parts = ("attn_q.", "attn_output.", "ffn_up", "ffn_down", "ffn_gate_exps")
    names = [tensor for tensor in base.tensors if any(part in tensor for part in parts)]
    assert ("blk.0.ffn_up_exps.weight" in names) == (name == "qwen3moe")
    adapter = lora(tmp_path / "adapter.gguf", base, names, std=0.03)
    merged = run(registry, base.path, [(adapter, 1.5)], tmp_path / "merged.gguf")
    agrees(logits(merged.path), logits(base.path, (adapter, 1.5)), logits(base.path))


def test_a_tied_embedding_changes_input_and_output(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = as_f32(guide_path, tmp_path)
    assert "output.weight" not in base.tensors
    adapter = lora(tmp_path / "adapter.gguf", base, ["token_embd.weight"], std=0.02)
    merged = read_header(run(registry, base.path, [(adapter, 1.0)], tmp_path / "merged.gguf").path)
    halves = read_header(adapter)
    a, b = tensor(halves, "token_embd.weight.lora_a"), tensor(halves, "token_embd.weight.lora_b")
    wanted = tensor(base, "token_embd.weight") + 2 * a @ b.T
    assert np.abs(tensor(merged, "token_embd.weight") - wanted).max() < 1e-5
    assert np.abs(logits(merged.path) - logits(base.path)).max() > 0.1  # llama.cpp loads and runs it


def test_only_what_the_adapters_touch_is_changed(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = read_header(guide_path)
    adapter = lora(tmp_path / "adapter.gguf", base, GUIDE)
    done = run(registry, guide_path, [(adapter, 1.0)], tmp_path / "merged.gguf")
    merged = read_header(done.path)
    assert list(merged.tensors) == list(base.tensors)
    for name, info in merged.tensors.items():
        assert (info.type, info.shape) == (base.tensors[name].type, base.tensors[name].shape)
        assert (raw(merged, name) == raw(base, name)) == (name not in GUIDE)
    assert 0.9 < done.kept < 1.1
    assert 0.9 < done.cosine < 1
    attached, alone, bare = logits(guide_path, (adapter, 1.0)), logits(done.path), logits(guide_path)
    assert np.abs(alone - attached).mean() < 0.3 * np.abs(bare - attached).mean()


def test_the_file_says_what_was_merged(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = read_header(guide_path)
    sha = registry.sha256(guide_path)
    first = lora(tmp_path / "first.gguf", base, GUIDE, sha=sha)
    second = lora(tmp_path / "another.gguf", base, GUIDE)
    merged = read_header(run(registry, guide_path, [(first, 1.0), (second, 0.25)], tmp_path / "m.gguf").path)
    old, new = (gguf.GGUFReader(path).fields for path in (guide_path, merged.path))
    kept = {
        key for key in old if key in new and not key.startswith("GGUF.") and old[key].contents() == new[key].contents()
    }
    assert set(base.metadata) - kept == {"general.name"}
    said = {key: value for key, value in merged.metadata.items() if key not in kept}
    assert said.pop("general.name") == f"{base.metadata['general.name']} + first + another"
    assert {key: list(said.pop(f"localllm.merged.{key}")) for key in ("adapters", "sha256", "scales")} == {  # type: ignore[arg-type]
        "adapters": ["first", "another"],
        "sha256": [registry.sha256(first), registry.sha256(second)],
        "scales": [1.0, 0.25],
    }
    assert said == {"localllm.merged.base.name": "guide", "localllm.merged.base.sha256": sha}
    assert not [key for key in merged.metadata if key.startswith("adapter.")]


def test_a_name_that_llama_cpp_would_act_upon_is_not_taken_over(
    registry: Registry, guide_path: Path, tmp_path: Path
) -> None:
    base = read_header(guide_path)
    adapter = lora(tmp_path / "Phi-3 style.gguf", base, GUIDE)
    merged = read_header(run(registry, guide_path, [(adapter, 1.0)], tmp_path / "merged.gguf").path)
    assert merged.metadata["general.name"] == base.metadata["general.name"]


@pytest.mark.parametrize("kind, number, bound", [("Q8_0", 7, 0.01), ("f16", 1, 1e-3), ("F32", 0, 1e-6)])
def test_a_type_for_the_whole_file(
    registry: Registry, guide_path: Path, tmp_path: Path, kind: str, number: int, bound: float
) -> None:
    base = read_header(guide_path)
    adapter = lora(tmp_path / "adapter.gguf", base, GUIDE)
    done = run(registry, guide_path, [(adapter, 1.0)], tmp_path / "out/merged.gguf", type=kind)
    assert os.listdir(done.path.parent) == ["merged.gguf"]
    merged = read_header(done.path)
    assert merged.metadata["general.file_type"] == number
    assert merged.metadata["localllm.merged.base.name"] == "guide"
    halves = read_header(adapter)
    for name in base.tensors:
        wanted = tensor(base, name)
        if name in GUIDE:
            a, b = (tensor(halves, f"{name}.lora_{half}") for half in "ab")
            wanted = wanted + 2 * 4 / b.shape[-1] * b @ a
        if len(wanted.shape) == 2:
            assert merged.tensors[name].type == kind.upper()
            assert np.abs(tensor(merged, name) - wanted).max() < bound * np.abs(wanted).max()
    assert done.kept == pytest.approx(1, abs=0.01)


def test_types_that_stay_keep_their_bytes(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    """What is of the wanted type already is not rounded a second time."""
    quantize_model(guide_path, tmp_path / "base.gguf", "Q8_0", n_threads=1)
    base = read_header(tmp_path / "base.gguf")
    adapter = lora(tmp_path / "adapter.gguf", base, GUIDE)
    typed = run(registry, base.path, [(adapter, 1.0)], tmp_path / "typed.gguf", type="Q8_0")
    own = run(registry, base.path, [(adapter, 1.0)], tmp_path / "own.gguf")
    one, other = read_header(typed.path), read_header(own.path)
    assert all(raw(one, name) == raw(other, name) for name in base.tensors)
    assert all((raw(one, name) == raw(base, name)) == (name not in GUIDE) for name in base.tensors)
    assert (typed.kept, typed.cosine) == pytest.approx((own.kept, own.cosine), rel=1e-5)


def test_a_change_too_small_for_four_bits_is_reported(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = read_header(guide_path)
    small = [n for n in GUIDE if base.tensors[n].type == "Q4_K"]
    adapter = lora(tmp_path / "adapter.gguf", base, small)
    strong = run(registry, guide_path, [(adapter, 1.0)], tmp_path / "strong.gguf")
    weak = run(registry, guide_path, [(adapter, 1e-3)], tmp_path / "weak.gguf")
    rescued = run(registry, guide_path, [(adapter, 1e-3)], tmp_path / "rescued.gguf", type="F32")
    assert weak.kept_tensor in small
    assert weak.cosine < 0.5 < strong.cosine
    assert rescued.cosine > 0.99
    assert weak.kept <= weak.kept_overall < 0.9 * strong.kept_overall


def test_an_importance_matrix_is_used(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = read_header(guide_path)
    name = next(n for n in GUIDE if base.tensors[n].type == "Q4_K")
    adapter = lora(tmp_path / "adapter.gguf", base, [name])
    matrix = importance(tmp_path / "i.dat", name, base.tensors[name].shape[1])
    wanted = tensor(
        read_header(run(registry, guide_path, [(adapter, 1.0)], tmp_path / "f32.gguf", type="F32").path), name
    )
    for kind in (None, "Q4_K_S"):
        off = {}
        for used in (None, matrix):
            out = run(
                registry, guide_path, [(adapter, 1.0)], tmp_path / "m.gguf", type=kind, imatrix=used, overwrite=True
            )
            off[used] = ((tensor(read_header(out.path), name) - wanted) ** 2)[:, 1::2].mean()
        assert off[matrix] < 0.95 * off[None]


def test_tensors_of_few_bits_need_an_importance_matrix(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    base = read_header(guide_path)
    matrix = importance(tmp_path / "i.dat", name, base.tensors[name].shape[1])
    blocks = quantize_chunk(tensor(base, name), "IQ3_XXS", np.ones(base.tensors[name].shape[1], np.float32))
    small = Replacement("IQ3_XXS", base.tensors[name].shape, lambda: [blocks])
    copy_gguf(base, tmp_path / "base.gguf", changed={name: small})
    adapter = lora(tmp_path / "adapter.gguf", base, [name])
    with pytest.raises(UnsupportedModelError, match=r"importance matrix.*--imatrix"):
        run(registry, tmp_path / "base.gguf", [(adapter, 1.0)], tmp_path / "m.gguf")
    done = run(registry, tmp_path / "base.gguf", [(adapter, 1.0)], tmp_path / "m.gguf", imatrix=matrix)
    assert read_header(done.path).tensors[name].type == "IQ3_XXS"
