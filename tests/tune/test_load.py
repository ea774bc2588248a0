"""Our MLX model of a GGUF against llama.cpp on the same file; the F32 files isolate the loader."""

from __future__ import annotations

from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest

from localllm.engine.llama import LlamaEngine
from localllm.errors import InvalidModelError
from localllm.evaluate.agreement import kl, log_softmax
from localllm.tune.load import load_model
from localllm.tune.lora import attach, extract
from localllm.weights.adapter import from_tensors
from localllm.weights.gguf import read_header
from localllm.weights.lora import write_gguf
from tests.weights.oracle import oracle, shared

TOKENS = tuple(int(t) for t in np.random.default_rng(0).integers(3, 500, 128))


def saved_as(source: Path, target: Path, kind: str) -> Path:
    """A copy of a GGUF with its matrices in another type."""
    reader, quantized = gguf.GGUFReader(source), gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            nested = field.types[1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], nested)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, gguf.quants.quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def log_probabilities(path: Path, adapter: Path | None = None) -> np.ndarray:
    engine = LlamaEngine.open(path, n_ctx=128, exact=True)
    engine.set_adapters([(adapter, 1.0)] if adapter else [])
    try:
        return log_softmax(engine.logits(TOKENS))
    finally:
        engine.close()


def divergence(model: object, path: Path, adapter: Path | None = None) -> float:
    ours = log_softmax(np.array(model(mx.array([TOKENS])))[0])  # type: ignore[operator]
    return kl(log_probabilities(path, adapter), ours)


@pytest.mark.parametrize(
    "name, kind, limit",
    [
        ("llama", "F32", 1e-9),
        ("mistral", "F32", 1e-9),
        ("llama3-rope", "F32", 1e-9),
        ("llama", "F16", 1e-6),
        ("llama", "Q8_0", 1e-3),  # llama.cpp rounds activations: not the loader's
        ("llama", "Q4_0", 1e-3),
        ("llama", "Q5_1", 1e-3),
    ],
)
def test_mlx_and_llama_cpp_agree(name: str, kind: str, limit: float, tmp_path: Path) -> None:
    path = saved_as(oracle(f"{name}-f16.gguf"), tmp_path / "m.gguf", kind)
    file = read_header(path)
    assert divergence(load_model(file, "float32"), path) < limit
    if kind == "Q4_0":  # MLX's quantized kernels, as on a GPU, hold the same weights
        quantized = load_model(file, "quantized")
        assert quantized.layers[0].self_attn.q_proj.bits == 4
        assert divergence(quantized, path) < limit


def test_a_real_model_agrees_to_the_floor() -> None:
    path = shared() / "models" / "stories260K" / "stories260K.gguf"
    assert divergence(load_model(read_header(path), "float32"), path) < 1e-9


def test_a_strong_random_adapter_does_the_same_in_both(tmp_path: Path) -> None:
    path = saved_as(oracle("llama-f16.gguf"), tmp_path / "m.gguf", "F32")
    file = read_header(path)
    model = load_model(file, "float32")
    base = log_softmax(np.array(model(mx.array([TOKENS])))[0])
    attach(model, rank=4, alpha=8.0)
    for layer in model.layers:
        for module in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.o_proj, layer.mlp.down_proj):
            module.lora_b = 0.3 * mx.random.normal(module.lora_b.shape)
    adapter = extract(model, 4, 8.0)
    write_gguf(tmp_path / "a.gguf", adapter, file, {})
    assert kl(log_softmax(np.array(model(mx.array([TOKENS])))[0]), base) > 0.1
    assert divergence(model, path, tmp_path / "a.gguf") < 1e-9
    # with the rows of q and k in the wrong order it is another adapter: the check has teeth
    swapped = {n: t[:, ::-1] if n.endswith("q_proj.lora_b") else t for n, t in adapter.tensors().items()}
    write_gguf(tmp_path / "b.gguf", from_tensors(swapped, 4, 8.0), file, {})
    assert divergence(model, path, tmp_path / "b.gguf") > 1e-4


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    path = saved_as(oracle("llama-f16.gguf"), tmp_path / "m.gguf", "F32")
    file = read_header(path)
    del file.tensors["blk.1.ffn_up.weight"]
    with pytest.raises(InvalidModelError, match=r"lacks the tensor blk\.1\.ffn_up"):
        load_model(file, "float32")
