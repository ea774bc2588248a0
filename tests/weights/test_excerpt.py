"""Float32 copies of some layers: the same values as llama.cpp's own copy, and a model that still runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from localllm.engine.llama import LlamaEngine
from localllm.engine.quantize import quantize_model
from localllm.weights.excerpt import choose_layers, float_size, write_excerpt
from localllm.weights.gguf import read_header
from localllm.weights.quant import read_blocks
from tests.weights.oracle import fixture


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3moe"])
def test_a_whole_copy_holds_what_llama_cpp_makes_of_the_file(name: str, tmp_path: Path) -> None:
    file = read_header(fixture(name))
    write_excerpt(file, tmp_path / "ours.gguf", choose_layers(file, [], 1 << 40))
    quantize_model(file.path, tmp_path / "theirs.gguf", "F32")
    ours, theirs = read_header(tmp_path / "ours.gguf"), read_header(tmp_path / "theirs.gguf")
    assert ours.tensors.keys() == theirs.tensors.keys()
    for tensor, info in ours.tensors.items():
        assert info.type == "F32"
        other = theirs.tensors[tensor]
        assert np.array_equal(read_blocks(ours, info), read_blocks(theirs, other)), tensor


def test_chosen_layers_fit_and_are_those_wanted() -> None:
    file = read_header(fixture("gemma3"))
    rest, one = float_size(file, []), float_size(file, [0]) - float_size(file, [])
    assert choose_layers(file, [], 1 << 40) == list(range(7))
    assert choose_layers(file, [1, 3, 5], rest + 2 * one) == [1, 3]
    assert choose_layers(file, [6], rest + 3 * one) == [6]
    assert choose_layers(file, [4, 5], 0) == [4]  # at least one


def test_an_excerpt_is_a_model(tmp_path: Path) -> None:
    file = read_header(fixture("olmo3"))  # says for each layer whether it has a sliding window
    write_excerpt(file, tmp_path / "e.gguf", [1, 3])
    excerpt = read_header(tmp_path / "e.gguf")
    assert list(excerpt.metadata["olmo2.attention.sliding_window_pattern"]) == [1, 0]  # type: ignore[arg-type]
    for ours, original in ((0, 1), (1, 3)):
        name = (
            "attn_norm.weight" if f"blk.{original}.attn_norm.weight" in file.tensors else "post_attention_norm.weight"
        )
        pair = (excerpt, f"blk.{ours}.{name}"), (file, f"blk.{original}.{name}")
        a, b = (read_blocks(f, f.tensors[n]) for f, n in pair)
        assert np.array_equal(a, b)
    engine = LlamaEngine.open(excerpt.path, n_ctx=32, n_threads=1)
    assert np.isfinite(engine.logits([1, 2, 3])).all()
    engine.close()
