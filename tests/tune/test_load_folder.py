"""The model of an MLX folder against mlx-lm's own of the same folder, and against the GGUF that it was made with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from localllm.evaluate.agreement import kl, log_softmax
from localllm.tune.load import load_model
from localllm.tune.load_folder import load_folder
from localllm.tune.lora import attach
from localllm.weights.gguf import read_header
from localllm.weights.mlx_folder import read_model_folder
from localllm.weights.mlx_parameters import held_bytes, match
from localllm.weights.writer import copy_gguf
from tests.tune.mlx_folders import write_mlx_folder
from tests.tune.test_architectures import gradients
from tests.tune.test_load import GEMMA_FLOOR, TOKENS, in_mlx
from tests.weights.oracle import fixture, oracle

SAME = 1e-11
ROOT_OF_WIDTH = 1e-5  # mlx-lm's Gemma 3 rounds the root of the width to bfloat16


def in_mlx_lm(folder: Path) -> np.ndarray:
    """What mlx-lm makes of a folder, in float32."""
    from mlx_lm.utils import load_model as load

    model, _ = load(folder)
    model.set_dtype(mx.float32)
    return log_softmax(np.array(model(mx.array([TOKENS])))[0])


def loaded(name: str, folder: Path, residence: Any = "float32", dtype: mx.Dtype = mx.float32) -> Any:
    return load_folder(read_model_folder(folder), read_header(fixture(name)), residence, dtype, n_ctx=128)


def mixed(path: str, module: Any) -> bool | dict[str, Any]:
    """As mlx-lm's mixed recipes: more bits for some matrices, none for others."""
    if path.endswith("lm_head") or path.endswith("v_proj"):
        return {"group_size": 32, "bits": 6, "mode": "affine"}
    return not path.endswith("o_proj")


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma3", "phi3"])
@pytest.mark.parametrize("form", [{}, {"bits": 3, "group_size": 128, "dtype": mx.float16, "shards": 2}])
def test_the_logits_are_those_of_mlx_lm(name: str, form: dict[str, Any], tmp_path: Path) -> None:
    """With positions that are not scaled: those that are follow llama.cpp (see tune.follow), not the folder."""
    gguf, original = tmp_path / "m.gguf", read_header(fixture(name))
    copy_gguf(original, gguf, metadata={key: None for key in original.metadata if ".rope.scaling." in key})
    folder = write_mlx_folder(gguf, tmp_path / "mlx", **form)
    file, theirs = read_header(gguf), in_mlx_lm(folder)
    ours = in_mlx(load_folder(read_model_folder(folder), file, "float32", n_ctx=128))
    assert kl(theirs, ours) < (ROOT_OF_WIDTH if name == "gemma3" else SAME)
    assert kl(theirs, in_mlx(load_model(file, "float32", n_ctx=128))) > ROOT_OF_WIDTH  # it has other weights


@pytest.mark.parametrize("name", ["llama", "qwen3moe", "gemma2"])
def test_every_residence_holds_the_same_weights(name: str, tmp_path: Path) -> None:
    folder = write_mlx_folder(fixture(name), tmp_path, bits=4, predicate=mixed)
    model, streamed, quantized = (loaded(name, folder, held) for held in ("float32", "streamed", "quantized"))
    attention = quantized.layers[0].self_attn
    assert (attention.q_proj.bits, attention.q_proj.group_size, attention.v_proj.bits) == (4, 64, 6)
    assert not hasattr(attention.o_proj, "bits")
    assert type(streamed.layers[0].self_attn.q_proj).__name__ == "StreamedLinear"
    assert type(streamed.layers[0].self_attn.o_proj).__name__ == "StreamedHalf"
    for other in (streamed, quantized):
        assert kl(in_mlx(model), in_mlx(other)) < GEMMA_FLOOR
    for each in (model, streamed):
        attach(each, 4, 8.0, seed=1)
    whole, pieces = gradients(model), gradients(streamed)
    for key, value in whole.items():
        assert float(mx.abs(value - pieces[key]).max()) <= 1e-4 * float(mx.abs(value).max()) + 1e-9, key


def test_half_precision_as_on_a_gpu(tmp_path: Path) -> None:
    folder = write_mlx_folder(fixture("llama"), tmp_path, bits=4)
    half = loaded("llama", folder, "quantized", mx.float16)
    assert half.layers[0].self_attn.q_proj.scales.dtype == mx.float16
    assert half.layers[0].input_layernorm.weight.dtype == mx.float16
    few = mx.array([TOKENS[:8]])  # float16 is slow on a CPU
    whole, rounded = (log_softmax(np.array(m(few).astype(mx.float32))[0]) for m in (loaded("llama", folder), half))
    assert kl(whole, rounded) < 1e-4


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_a_folder_of_hugging_face_is_the_f16_gguf_of_it(name: str) -> None:
    """llama.cpp's converter made the one from the other: rows of q and k change places, and no bit of a weight."""
    file, folder = read_header(oracle(f"{name}-f16.gguf")), read_model_folder(oracle(name))
    ours = load_folder(folder, file, "float32", n_ctx=128)
    assert np.array_equal(in_mlx(ours), in_mlx(load_model(file, "float32", n_ctx=128)))


@pytest.mark.parametrize("residence", ["float32", "streamed", "quantized"])
def test_what_is_held_is_what_was_estimated(residence: Any, tmp_path: Path) -> None:
    folder = write_mlx_folder(fixture("llama"), tmp_path, bits=4, predicate=mixed)
    model = loaded("llama", folder, residence, mx.float16 if residence == "quantized" else mx.float32)
    held = sum(value.nbytes for _, value in tree_flatten(model.parameters()))
    assert held == held_bytes(match(read_model_folder(folder), read_header(fixture("llama"))), residence)
