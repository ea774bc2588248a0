"""mlx-lm's adapter folders: old and new ones, what counts as the strength, what is refused, and one it wrote itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from localllm.errors import AdapterError, AdapterMismatchError
from localllm.weights import mlx_lm
from localllm.weights.adapter import CONFIG, WEIGHTS, from_scaled
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.lora import check_fit, gguf_tensors
from tests.weights.bases import base, delta, pair
from tests.weights.oracle import shared

Q, DOWN, UP = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj", "model.layers.1.mlp.switch_mlp.up_proj"
SHAPES: dict[str, tuple[int, ...]] = {Q: (32, 32), DOWN: (32, 48)}


def folder(path: Path, config: dict[str, Any], extra: dict[str, np.ndarray] | None = None) -> Path:
    """A folder as mlx-lm writes it: rank 4 on two modules."""
    path.mkdir(exist_ok=True)
    tensors = {}
    for seed, (name, shape) in enumerate(SHAPES.items()):
        tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"] = pair(shape, 4, seed)
    save_file(tensors | (extra or {}), path / WEIGHTS)
    (path / CONFIG).write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    "parameters, scale, note",
    [
        ({"rank": 4, "scale": 10.0, "dropout": 0.05}, 10.0, ""),
        ({"rank": 4, "alpha": 16, "dropout": 0.0, "scale": 10.0}, 10.0, "scale 10 counts"),
        ({"rank": 4, "alpha": 16}, 4.0, "alpha / rank = 4 was taken"),
        ({"rank": 4}, 20.0, "mlx-lm's default of 20"),
    ],
)
@pytest.mark.parametrize(
    "top", [{"fine_tune_type": "lora", "num_layers": 2}, {"lora_layers": 2}, {"fine_tune_type": None, "num_layers": 2}]
)
def test_the_strength_is_mlx_lm_s(
    tmp_path: Path, top: dict[str, Any], parameters: dict[str, Any], scale: float, note: str
) -> None:
    file = base(tmp_path / "base.gguf")
    where = folder(tmp_path / "a", {**top, "lora_parameters": parameters})
    (where / "0000100_adapters.safetensors").write_bytes(b"a checkpoint, which is not read")
    adapter, notes = mlx_lm.read(where)
    assert (adapter.rank, adapter.scale, adapter.dropout) == (4, scale, parameters.get("dropout", 0.0))
    assert [note in n for n in notes] == ([True] if note else [])
    assert set(check_fit(adapter, file)) == set(SHAPES)
    assert np.array_equal(adapter.layers[Q][0], pair(SHAPES[Q], 4, 0)[0])


@pytest.mark.parametrize(
    "config, extra, problem",
    [
        ({"fine_tune_type": "dora", "lora_parameters": {"scale": 1}}, {}, "is a DoRA"),
        ({"lora_parameters": {"scale": 1}}, {f"{Q}.m": np.ones(32, np.float32)}, r"is a DoRA.*q_proj\.m"),
        ({"fine_tune_type": "full"}, {}, "a full fine-tune, not an adapter"),
        (
            {"lora_parameters": {"scale": 1}},
            {f"{Q}.weight": np.ones(2, np.float32)},
            r"a full fine-tune.*q_proj\.weight",
        ),
        ({"fine_tune_type": "x"}, {}, "of the kind 'x'"),
        ({}, {}, "no lora_parameters"),
        ([], {}, "is not a JSON object"),
        ({"lora_parameters": {"scale": "10"}}, {}, "has 10 as its scale, which is not a finite number"),
        ({"lora_parameters": {"scale": float("nan")}}, {}, "not a finite number"),
        ({"lora_parameters": {"scale": 10**400}}, {}, "not a finite number"),
        ({"lora_parameters": {"alpha": 8, "rank": 0}}, {}, "alpha without a rank"),
        ({"lora_parameters": {"scale": 1}}, {"x.lora_a": np.ones((2, 2), np.float32)}, r"x\.lora_a without x\.lora_b"),
    ],
)
def test_what_is_no_lora_is_refused_with_the_reason(
    tmp_path: Path, config: dict[str, Any], extra: dict[str, np.ndarray], problem: str
) -> None:
    with pytest.raises(AdapterError, match=problem):
        mlx_lm.read(folder(tmp_path / "a", config, extra))


def test_the_oldest_layout_is_refused_by_name_and_never_opened(tmp_path: Path) -> None:
    where = folder(tmp_path / "a", {"lora_parameters": {"scale": 1}})
    (where / WEIGHTS).unlink()
    (where / "adapters.npz").write_bytes(b"not even a zip")
    with pytest.raises(AdapterError, match=r"holds adapters\.npz"):
        mlx_lm.read(where)
    (where / CONFIG).write_text("{")
    (where / WEIGHTS).touch()
    with pytest.raises(AdapterError, match="is not JSON"):
        mlx_lm.read(where)


def test_experts_of_both_layouts_and_a_prefix(tmp_path: Path) -> None:
    file = base(tmp_path / "base.gguf", "qwen3moe")
    a, b = pair((3, 48, 32), 4, 9)
    config = {"lora_parameters": {"scale": 2.0}}
    for name, stack in (("new", a), ("old", a.reshape(12, 32))):
        where = tmp_path / name
        where.mkdir()
        save_file({f"language_model.{UP}.lora_a": stack, f"language_model.{UP}.lora_b": b}, where / WEIGHTS)
        (where / CONFIG).write_text(json.dumps(config))
        adapter, _ = mlx_lm.read(where)
        check_fit(adapter, file)
        assert np.array_equal(adapter.layers[UP][0], a)


def test_written_folders_have_one_rank_and_come_back(tmp_path: Path) -> None:
    layers = {Q: (*pair((32, 32), 4, 0), 2.0), UP: (*pair((3, 48, 32), 2, 1), 2.0)}
    adapter = from_scaled({**layers, "model.embed_tokens": (*pair((40, 32), 1, 2, embedding=True), 2.0)})
    mlx_lm.write(tmp_path, adapter)
    again, notes = mlx_lm.read(tmp_path)
    assert notes == []
    assert again.scale == 2.0
    for path, (a, b) in adapter.layers.items():
        embedding = path == "model.embed_tokens"
        assert again.layers[path][0].shape[1] == 4
        assert np.array_equal(delta(*again.layers[path], embedding=embedding), delta(a, b, embedding=embedding))
    config = (tmp_path / CONFIG).read_text()
    assert str(tmp_path) not in config
    assert json.loads(config)["num_layers"] == -1


def qwen(path: Path) -> GGUFFile:
    """As much of Qwen2.5-0.5B as an adapter on q and v of its last four layers touches."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(24)
    writer.add_context_length(32768)
    writer.add_embedding_length(896)
    writer.add_feed_forward_length(4864)
    writer.add_head_count(14)
    writer.add_head_count_kv(2)
    for layer in range(20, 24):
        writer.add_tensor(f"blk.{layer}.attn_q.weight", np.zeros((896, 896), np.float16))
        writer.add_tensor(f"blk.{layer}.attn_v.weight", np.zeros((128, 896), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_header(path)


def test_a_real_folder_with_null_metadata(tmp_path: Path) -> None:
    where = tmp_path / "a"
    shutil.copytree(shared() / "lora/mlx-qwen2.5-0.5b-instruct", where)
    assert b'"__metadata__":null' in (where / WEIGHTS).read_bytes()[:60]
    adapter, (note,) = mlx_lm.read(where)
    assert "scale 10 counts" in note
    assert (adapter.rank, adapter.scale, len(adapter.layers)) == (8, 10.0, 8)
    tensors = gguf_tensors(adapter, qwen(tmp_path / "qwen.gguf"))
    assert len(tensors) == 16
    assert tensors["blk.20.attn_v.weight.lora_b"].shape == (128, 8)
    a, b = adapter.layers["model.layers.23.self_attn.q_proj"]
    np.testing.assert_array_equal(tensors["blk.23.attn_q.weight.lora_a"], a.T)
    np.testing.assert_array_equal(tensors["blk.23.attn_q.weight.lora_b"], b.T)
    assert b.any(), "it was trained"
    with pytest.raises(AdapterMismatchError, match=r"changes model\.layers\.2[0-3]\.self_attn"):
        check_fit(adapter, base(tmp_path / "base.gguf", "qwen2"))
