"""Folders of MLX models: read strictly, never run, and held against the GGUF that they are to be trained for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from localllm.errors import InvalidModelError, ModelError, ModelNotFoundError, UnsupportedModelError
from localllm.weights.gguf import read_header
from localllm.weights.mlx_folder import INDEX, read_model_folder
from localllm.weights.mlx_pairing import check_config, check_weights
from localllm.weights.mlx_parameters import match, padding
from tests.tune.mlx_folders import write_mlx_folder
from tests.weights.oracle import fixture, oracle

Q = "model.layers.0.self_attn.q_proj"
NORM = "model.layers.1.input_layernorm.weight"


@dataclass
class Folder:
    """A sound folder in memory, to be damaged and written."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self) -> Path:
        self.path.mkdir()
        (self.path / "config.json").write_text(json.dumps(self.config))
        save_file(self.tensors, self.path / "model.safetensors")
        return self.path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlx")
    return write_mlx_folder(fixture("llama"), folder, bits=4, dtype=mx.float16)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Folder:
    return Folder(
        tmp_path / "model", json.loads((made / "config.json").read_text()), load_file(made / "model.safetensors")
    )


def compare(path: Path, model: str = "llama") -> float:
    """All the checks, as fine-tuning makes them."""
    found, file = read_model_folder(path), read_header(fixture(model))
    check_config(found, file)
    return check_weights(found, file, match(found, file))


@pytest.mark.parametrize(
    "bits, group_size, least, most",
    [(None, 64, 0.001, 0.002), (8, 32, 0.005, 0.008), (6, 64, 0.02, 0.03), (5, 128, 0.04, 0.05), (4, 64, 0.08, 0.1),
     (3, 32, 0.15, 0.2), (2, 64, 0.35, 0.42)],
)  # fmt: skip
def test_the_same_weights_differ_by_their_rounding(
    bits: int | None, group_size: int, least: float, most: float, tmp_path: Path
) -> None:
    for name in ("llama", "qwen2-fused", "gemma3"):
        path = write_mlx_folder(fixture(name), tmp_path / name, bits=bits, group_size=group_size, shards=2)
        assert least < compare(path, name) < most


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_folder_of_hugging_face_has_not_a_bit_of_difference(name: str) -> None:
    found, file = read_model_folder(oracle(name)), read_header(oracle(f"{name}-f16.gguf"))
    check_config(found, file)
    assert check_weights(found, file, match(found, file)) == 0.0


def test_what_is_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="There is no folder"):
        read_model_folder(tmp_path / "none")
    with pytest.raises(InvalidModelError, match="is not a folder"):
        read_model_folder(fixture("llama"))
    with pytest.raises(InvalidModelError, match=r"has no config\.json.*mlx_lm\.convert"):
        read_model_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidModelError, match="has no model"):
        read_model_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InvalidModelError, match="is empty"):
        read_model_folder(tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(InvalidModelError, match="is not JSON"):
        read_model_folder(tmp_path)


def test_a_truncated_file_is_no_model(folder: Folder) -> None:
    weights = folder.write() / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(InvalidModelError, match=r"not a sound safetensors file.*again"):
        read_model_folder(folder.path)


@pytest.mark.parametrize(
    "index, problem",
    [
        ({}, "has no weight_map"),
        ({"weight_map": {"a": "../other.safetensors"}}, "which is no file of the folder"),
        ({"weight_map": {"a": "model.bin"}}, "which is no file of the folder"),
        ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "lacks model-00001"),
    ],
)
def test_an_index_names_files_of_the_folder(folder: Folder, index: dict[str, Any], problem: str) -> None:
    (folder.write() / INDEX).write_text(json.dumps(index))
    with pytest.raises(InvalidModelError, match=problem):
        read_model_folder(folder.path)


def test_a_tensor_lies_in_one_file(folder: Folder) -> None:
    save_file({NORM: folder.tensors[NORM]}, folder.write() / "model-2.safetensors")
    with pytest.raises(InvalidModelError, match=f"has {NORM} in two files"):
        read_model_folder(folder.path)


@pytest.mark.parametrize(
    "settings, problem",
    [
        ({"model_file": "custom.py"}, r"names Python code of its own \(model_file\)"),
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "never run.*remove 'auto_map'"),
        ({"text_config": {"model_file": "custom.py"}}, "never run"),
        ({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}, "in the mode mxfp4; only affine"),
        ({"quantization": {"group_size": 32, "bits": 4, Q: {"mode": "nvfp4"}}}, "in the mode nvfp4"),
        ({"quantization": None, "quantization_config": {"quant_method": "gptq"}}, "is quantized by gptq, not by MLX"),
    ],
)
def test_code_and_other_kinds_of_quantization_are_refused(
    folder: Folder, settings: dict[str, Any], problem: str
) -> None:
    folder.config |= settings
    (folder.write() / "custom.py").write_text("raise SystemExit('was run')")
    with pytest.raises(UnsupportedModelError, match=problem):
        read_model_folder(folder.path)


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "qwen2"}, {"hidden_size": 512}, {"num_hidden_layers": 3}, {"intermediate_size": 1},
        {"num_attention_heads": 8}, {"num_key_value_heads": 4}, {"rms_norm_eps": 1e-5}, {"rope_theta": 500000.0},
        {"rope_theta": None, "rope_parameters": {"rope_theta": 5e5}}, {"tie_word_embeddings": True},
        {"hidden_size": "256"}, {"hidden_size": True}, {"hidden_size": 10**400},
    ],
    ids=str,
)  # fmt: skip
def test_another_model_is_told_by_its_numbers(folder: Folder, settings: dict[str, Any]) -> None:
    folder.config |= settings
    folder.write()
    key = "rope_theta" if "rope_theta" in settings else next(iter(settings))
    with pytest.raises(InvalidModelError, match=f"its {key} is .*Give --model the GGUF"):
        compare(folder.path)


def test_what_the_configuration_leaves_out_is_not_compared(folder: Folder) -> None:
    folder.config = {"model_type": "mistral"}
    assert compare(folder.write()) < 0.1


def _swapped(tensors: dict[str, np.ndarray]) -> None:
    """The rows of q as a GGUF has them: the two halves of each head alternate."""
    for part in ("weight", "scales", "biases"):
        rows = tensors[f"{Q}.{part}"]
        order = np.arange(len(rows)).reshape(4, 2, -1).swapaxes(1, 2).reshape(-1)
        tensors[f"{Q}.{part}"] = np.ascontiguousarray(rows[order])


def _changed(name: str, value: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = np.ascontiguousarray(value(tensors[name]))

    return change


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda t: [t.pop(f"{Q}.{part}") for part in ("weight", "scales", "biases")], f"lacks {Q}.weight"),
        (lambda t: t.pop(NORM), r"lacks blk\.1\.attn_norm\.weight"),
        (lambda t: t.update({f"{Q}.bias": np.zeros(256, np.float16)}), f"holds {Q}.bias, which llama.gguf does not"),
        (lambda t: t.update({"model.eyes.weight": np.zeros(4, np.float16)}), "holds model.eyes.weight"),
        (lambda t: t.pop(f"{Q}.biases"), "is not quantized in MLX's affine groups"),
        (_changed(f"{Q}.scales", lambda v: v.view(np.uint8)), "is not quantized in MLX's affine groups"),
        (_changed(f"{Q}.weight", lambda v: v[:, :-1]), "has parts of the shapes"),
        (_changed(f"{Q}.weight", lambda v: v[0, 0].reshape(())), "is not quantized in MLX's affine groups"),
        (_changed(f"{Q}.scales", lambda v: v[:, :2]), "has parts of the shapes"),
        (_changed(NORM, lambda v: v[:-1]), rf"{NORM} has the shape \(255,\), and \(256,\)"),
        (_changed(NORM, lambda v: v.astype(np.float64)), "has the dtype F64"),
        (_changed(NORM, lambda v: v * np.float16(1.05)), rf"does not hold the weights.*{NORM} differs by 5%"),
        (_changed(NORM, lambda v: v * np.float16(np.nan)), "differs by nan%"),
        (_swapped, rf"{Q}\.weight differs by 1\d\d% .*, and their rounding explains \d\d% at most"),
        (_changed("model.embed_tokens.weight", lambda v: v[::-1]), r"embed_tokens\.weight differs by 1\d\d%"),
    ],
)
def test_what_is_wrong_with_a_tensor_is_said(folder: Folder, change: Any, problem: str) -> None:
    change(folder.tensors)
    with pytest.raises(ModelError, match=problem):
        compare(folder.write())


def test_another_model_of_the_same_shapes_is_told_by_its_weights(folder: Folder) -> None:
    rng = np.random.default_rng(1)
    for name, value in folder.tensors.items():
        if value.dtype == np.uint32:
            folder.tensors[name] = rng.permuted(value)
    with pytest.raises(InvalidModelError, match=r"does not hold the weights of llama\.gguf.*Give --model the GGUF"):
        compare(folder.write())


def test_rows_for_tokens_that_the_gguf_does_not_know_are_left_out(folder: Folder) -> None:
    for part in ("weight", "scales", "biases"):
        for path in ("model.embed_tokens", "lm_head"):
            folder.tensors[f"{path}.{part}"] = np.pad(folder.tensors[f"{path}.{part}"], ((0, 16), (0, 0)))
    assert compare(folder.write()) < 0.1
    found, file = read_model_folder(folder.path), read_header(fixture("llama"))
    assert padding(match(found, file)) == 16


def test_a_model_that_also_sees_is_read_for_its_text(folder: Folder) -> None:
    prefixed = {f"language_model.{name}": value for name, value in folder.tensors.items()}
    folder.tensors = prefixed | {"vision_tower.patch.weight": np.zeros(4, np.float16)}
    numbers = {key: folder.config.pop(key) for key in ("hidden_size", "model_type", "tie_word_embeddings")}
    folder.config |= {"model_type": "llava", "text_config": numbers}
    assert compare(folder.write()) < 0.1
