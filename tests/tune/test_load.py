"""Our MLX model of a GGUF against llama.cpp on the same file, for every architecture.

On float32 files what is left is the difference of two programs' arithmetic: the loader is judged there. On quantized
files llama.cpp rounds activations, which is another matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from localllm.engine.llama import LlamaEngine
from localllm.engine.quantize import quantize_model
from localllm.errors import InvalidModelError
from localllm.evaluate.agreement import kl, log_softmax
from localllm.tune.load import load_model
from localllm.tune.lora import attach_adapter, detached
from localllm.weights.adapter import Adapter
from localllm.weights.architectures import supported
from localllm.weights.excerpt import write_excerpt
from localllm.weights.gguf import read_header
from localllm.weights.lora import write_gguf
from localllm.weights.names import EMBEDDING, OUTPUT, Slot, modules
from tests.weights.oracle import FIXTURES, fixture, shared

MODELS = sorted(path.stem for path in FIXTURES.glob("*.gguf"))
TOKENS = tuple(int(t) for t in np.random.default_rng(0).integers(3, 500, 128))
FLOOR, GEMMA_FLOOR = 1e-9, 1e-7  # ggml's GELU is a table of float16


def floor(name: str) -> float:
    return GEMMA_FLOOR if name.startswith("gemma") else FLOOR


def in_llama_cpp(path: Path, adapter: Path | None = None) -> np.ndarray:
    engine = LlamaEngine.open(path, n_ctx=128, n_threads=1, exact=True)
    try:
        engine.set_adapters([(adapter, 1.0)] if adapter else [])
        return log_softmax(engine.logits(TOKENS))
    finally:
        engine.close()


def in_mlx(model: object) -> np.ndarray:
    return log_softmax(np.array(model(mx.array([TOKENS])))[0])  # type: ignore[operator]


def float_copy(path: Path, target: Path) -> Path:
    file = read_header(path)
    write_excerpt(file, target, list(range(int(str(file.metadata[f"{file.architecture}.block_count"])))))
    return target


def random_adapter(path: Path, *, skip: tuple[str, ...] = ()) -> Adapter:
    """A strong adapter on every matrix that llama.cpp takes one for, the rank another for each kind of module."""
    file, rng = read_header(path), np.random.default_rng(1)
    slots = modules(file)
    tied = OUTPUT not in slots
    left = {p: s for p, s in slots.items() if p not in skip and not (tied and p == EMBEDDING)}
    return Adapter(8, 8.0, {p: _pair(rng, p, s, 2 + 2 * (i % 4)) for i, (p, s) in enumerate(left.items())})


def _pair(rng: np.random.Generator, path: str, slot: Slot, rank: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = slot.shape[-2:]
    if path == EMBEDDING:
        shapes: tuple[tuple[int, ...], ...] = ((rows, rank), (rank, columns))
    elif len(slot.shape) == 3:
        shapes = (slot.shape[0], rank, columns), (slot.shape[0], rows, rank)
    else:
        shapes = (columns, rank), (rank, rows)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    return a * np.float32(columns**-0.5), b * np.float32(0.05)


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_is_at_the_floor(name: str, tmp_path: Path) -> None:
    path = float_copy(fixture(name), tmp_path / "m.gguf")
    assert kl(in_llama_cpp(path), in_mlx(load_model(read_header(path), "float32", n_ctx=128))) < floor(name)


@pytest.mark.parametrize("name", MODELS)
def test_the_quantized_file_holds_the_same_model(name: str, tmp_path: Path) -> None:
    """MLX's model of the Q4_K_M file is that of its float32 copy, value by value: the repacking loses nothing."""
    path = fixture(name)
    ours = in_mlx(load_model(read_header(path), "float32", n_ctx=128))
    copy = float_copy(path, tmp_path / "m.gguf")
    assert np.array_equal(ours, in_mlx(load_model(read_header(copy), "float32", n_ctx=128)))
    assert kl(in_llama_cpp(path), ours) < 0.02  # llama.cpp's rounding, reported in README and not judged


@pytest.mark.parametrize("name", MODELS)
def test_a_random_adapter_on_every_matrix_is_at_the_floor(name: str, tmp_path: Path) -> None:
    path = float_copy(fixture(name), tmp_path / "m.gguf")
    file, adapter = read_header(path), random_adapter(path)
    model = load_model(file, "float32", n_ctx=128)
    attach_adapter(model, adapter)
    write_gguf(tmp_path / "a.gguf", adapter, file, {})
    tuned = in_mlx(model)
    with detached(model):
        assert kl(tuned, in_mlx(model)) > 0.01  # it does something
    assert kl(in_llama_cpp(path, tmp_path / "a.gguf"), tuned) < floor(name)


@pytest.mark.parametrize("name", ["llama", "qwen3moe"])
@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q5_K_M"])
def test_other_types_saved_again_as_float32_are_at_the_floor(name: str, kind: str, tmp_path: Path) -> None:
    float_copy(fixture(name), tmp_path / "f.gguf")
    quantize_model(tmp_path / "f.gguf", tmp_path / "q.gguf", kind)
    quantize_model(tmp_path / "q.gguf", tmp_path / "again.gguf", "F32")
    ours = in_mlx(load_model(read_header(tmp_path / "q.gguf"), "float32", n_ctx=128))
    assert kl(in_llama_cpp(tmp_path / "again.gguf"), ours) < FLOOR


@pytest.mark.parametrize("name", ["llama", "llama-fused", "qwen3moe", "phi3"])
def test_blocks_that_stay_quantized_hold_the_same_weights(name: str) -> None:
    """As on a GPU; float32 scales make the products the same but for the order of sums."""
    file = read_header(fixture(name))
    quantized = load_model(file, "quantized", n_ctx=128)
    assert quantized.layers[0].self_attn.o_proj.bits == 4
    assert kl(in_mlx(quantized), in_mlx(load_model(file, "float32", n_ctx=128))) < FLOOR


@pytest.mark.parametrize("other, bits", [("16bit", None), ("8bit", 8)])
def test_types_without_a_form_in_mlx_become_what_was_chosen(other: Any, bits: int | None) -> None:
    """The output of a Q4_K_M file is Q6_K."""
    file = read_header(fixture("llama"))
    assert file.tensors["output.weight"].type == "Q6_K"
    model = load_model(file, "quantized", n_ctx=128, other=other)
    assert getattr(model.lm_head, "bits", None) == bits
    assert kl(in_mlx(load_model(file, "float32", n_ctx=128)), in_mlx(model)) < 1e-4


def test_every_entry_has_a_model_here() -> None:
    assert {read_header(fixture(name)).architecture for name in MODELS} == set(supported())


def test_rows_in_another_order_are_seen(tmp_path: Path) -> None:
    path = float_copy(fixture("llama"), tmp_path / "m.gguf")
    file, adapter = read_header(path), random_adapter(path)
    model = load_model(file, "float32")
    attach_adapter(model, adapter)
    swapped = {p: (a, b[:, ::-1] if p.endswith("q_proj") else b) for p, (a, b) in adapter.layers.items()}
    write_gguf(tmp_path / "a.gguf", Adapter(8, 8.0, swapped), file, {})
    assert kl(in_llama_cpp(path, tmp_path / "a.gguf"), in_mlx(model)) > 1e-4


def test_longrope_takes_the_factors_for_the_context(tmp_path: Path) -> None:
    file = read_header(fixture("phi3-longrope"))
    short, long = (in_mlx(load_model(file, "float32", n_ctx=n)) for n in (64, 128))
    assert kl(short, long) > 1e-4


def test_a_real_model_agrees_to_the_floor() -> None:
    path = shared() / "models" / "stories260K" / "stories260K.gguf"
    assert kl(in_llama_cpp(path), in_mlx(load_model(read_header(path), "float32"))) < FLOOR


def test_a_missing_tensor_is_named() -> None:
    file = read_header(fixture("llama"))
    del file.tensors["blk.1.ffn_up.weight"]
    with pytest.raises(InvalidModelError, match=r"lacks the tensor blk\.1\.ffn_up"):
        load_model(file, "float32")
