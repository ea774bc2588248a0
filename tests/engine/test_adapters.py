"""What is looked at before llama.cpp opens an adapter: everything that would abort it, be ignored, or do nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.engine.adapters import check_adapter
from localllm.errors import AdapterError, AdapterMismatchError, LocalLLMError
from tests.weights.bases import base

Q, EMBEDDING, EXPERTS = "blk.0.attn_q.weight", "token_embd.weight", "blk.1.ffn_up_exps.weight"
Shapes = dict[str, tuple[int, ...]]


def on(target: str, a: tuple[int, ...], b: tuple[int, ...]) -> Shapes:
    return {f"{target}.lora_a": a, f"{target}.lora_b": b}


PAIR = on(Q, (4, 32), (32, 4))


def write(
    path: Path, shapes: Shapes, set_alpha: Callable[[gguf.GGUFWriter], None] | None = None, architecture: str = "llama"
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    if set_alpha:
        set_alpha(writer)
    else:
        writer.add_float32("adapter.lora.alpha", 8.0)
    for name, shape in shapes.items():
        writer.add_tensor(name, np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "architecture, shapes",
    [
        ("llama", PAIR),
        ("llama", on(EMBEDDING, (40, 3), (32, 3))),
        ("llama", on("output.weight", (3, 32), (40, 3))),
        ("qwen3moe", on(EXPERTS, (3, 2, 32), (3, 48, 2))),
    ],
)
def test_what_fits_passes(tmp_path: Path, architecture: str, shapes: Shapes) -> None:
    file = base(tmp_path / "base.gguf", architecture)
    check_adapter(write(tmp_path / "a.gguf", shapes, architecture=architecture), file)


@pytest.mark.parametrize(
    "architecture, shapes, problem",
    [
        ("llama", {f"{Q}.lora_a": (4, 32)}, r"attn_q\.weight\.lora_a'? has no counterpart"),
        ("llama", {f"{Q}.lora_b": (32, 4)}, r"attn_q\.weight\.lora_b'? has no counterpart"),
        ("llama", on(Q, (4, 32), (32, 3)), r"attn_q\.weight\.lora_a'? .*do not fit"),
        ("llama", on(Q, (4, 30), (32, 4)), r"lora_a has shape \(4, 30\)"),
        ("llama", on(Q, (4, 32), (31, 4)), r"lora_b has shape \(31, 4\)"),
        ("llama", on(Q, (1, 4, 32), (32, 4)), r"lora_a'? has 3 dimensions"),
        ("llama", on(Q, (32,), (32, 4)), "has 1 dimensions"),
        ("llama", on("blk.9.attn_q.weight", (4, 32), (32, 4)), r"blk\.9\.attn_q\.weight, which"),
        ("llama", {**PAIR, "output_norm.weight": (32,)}, r"output_norm\.weight, a norm .* would leave out"),
        ("llama", {**PAIR, "blk.0.attn_q.bias": (32,)}, r"attn_q\.bias, which is not a LoRA matrix"),
        ("llama", on(EMBEDDING, (3, 40), (32, 3)), r"token_embd\.weight\.lora_a .*\(40, 3\)"),
        ("llama", on(EMBEDDING, (40, 3), (32, 4)), r"token_embd\.weight\.lora_a .*\(40, 4\)"),
        ("qwen3moe", on(EXPERTS, (2, 2, 32), (2, 48, 2)), r"\(2, 48, 2\).*\(3, 48, 2\)"),
        ("qwen3moe", on(EXPERTS, (2, 32), (48, 2)), "2 dimensions"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, architecture: str, shapes: Shapes, problem: str) -> None:
    file = base(tmp_path / "base.gguf", architecture)
    with pytest.raises(LocalLLMError, match=problem):  # what no base could take is refused with the header
        check_adapter(write(tmp_path / "a.gguf", shapes, architecture=architecture), file)


def test_a_tied_embedding_and_another_architecture_are_refused(tmp_path: Path) -> None:
    tied = base(tmp_path / "tied.gguf", tied=True)
    embedding = on(EMBEDDING, (40, 3), (32, 3))
    with pytest.raises(AdapterError, match=r"shares with its output.*merge it"):
        check_adapter(write(tmp_path / "a.gguf", embedding), tied)
    with pytest.raises(AdapterMismatchError, match=r"is for qwen3 models; tied\.gguf is a llama model"):
        check_adapter(write(tmp_path / "b.gguf", PAIR, architecture="qwen3"), tied)
    with pytest.raises(AdapterError, match="not a LoRA adapter"):
        check_adapter(tmp_path / "tied.gguf", tied)


@pytest.mark.parametrize(
    "set_alpha, problem",
    [
        (lambda w: w.add_float32("adapter.lora.alpha", 0.0), r"alpha 0: llama\.cpp would take that for no alpha"),
        (lambda w: w.add_float32("adapter.lora.alpha", float("nan")), "alpha nan"),
        (lambda w: w.add_float64("adapter.lora.alpha", 8.0), "not a 32-bit float"),
        (lambda w: w.add_uint32("adapter.lora.alpha", 8), "not a 32-bit float"),
        (lambda w: w.add_string("adapter.lora.alpha", "8"), "not a 32-bit float"),
        (lambda w: w.add_array("adapter.alora.invocation_tokens", [1, 2]), "activated LoRA"),
    ],
)
def test_metadata_that_llama_cpp_would_misread_is_refused(
    tmp_path: Path, set_alpha: Callable[[gguf.GGUFWriter], None], problem: str
) -> None:
    with pytest.raises(LocalLLMError, match=problem):
        check_adapter(write(tmp_path / "a.gguf", PAIR, set_alpha), base(tmp_path / "base.gguf"))


def test_a_missing_alpha_is_llama_cpp_s_scale_of_one(tmp_path: Path) -> None:
    check_adapter(write(tmp_path / "a.gguf", PAIR, lambda w: None), base(tmp_path / "base.gguf"))
