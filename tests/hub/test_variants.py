"""Which models a list of files holds."""

from __future__ import annotations

import pytest

from localllm.errors import RemoteNotFoundError, UsageError
from localllm.hub.listing import RemoteFile, Repository
from localllm.hub.variants import chosen, folder_variant, gguf_variants, is_mlx


def repository(*names: str, tags: tuple[str, ...] = ()) -> Repository:
    files = tuple(RemoteFile(name, 1000 + i, f"{i:064x}") for i, name in enumerate(names))
    return Repository("me/m", "main", "0" * 40, files, tags=tags)


@pytest.mark.parametrize(
    "name, quantization",
    [
        ("Qwen3-0.6B-Q4_K_M.gguf", "Q4_K_M"), ("SmolLM2-135M-Instruct.Q8_0.gguf", "Q8_0"),
        ("gemma-3-1b-it-q4_0.gguf", "Q4_0"), ("m-IQ2_XXS.gguf", "IQ2_XXS"), ("ggml-model-f16.gguf", "F16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"), ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"), ("m-BF16.gguf", "BF16"),
        ("bitnet-TQ2_0.gguf", "TQ2_0"), ("Q4/plain.gguf", "plain"), ("m-Q4_K_M-imat.gguf", "Q4_K_M"),
    ],
)  # fmt: skip
def test_quantizations_are_read_off_names(name: str, quantization: str) -> None:
    assert [v.quantization for v in gguf_variants(repository(name))] == [quantization]


def test_parts_are_one_model_and_an_incomplete_one_is_none() -> None:
    whole = [f"Q8_0/m-Q8_0-0000{n}-of-00003.gguf" for n in (2, 3, 1)]
    found = gguf_variants(repository("README.md", *whole, "m-Q4_0-00001-of-00002.gguf", "m-Q5_0.gguf"))
    assert {v.quantization: [f.path for f in v.files] for v in found} == {
        "Q8_0": sorted(whole), "Q5_0": ["m-Q5_0.gguf"],
    }  # fmt: skip


def test_what_is_no_model_is_left_aside() -> None:
    assert gguf_variants(repository("mmproj-F16.gguf", "m.imatrix.gguf", "ggml-vocab-x.gguf", "a-lora-Q8_0.gguf")) == []


def test_a_wrong_quantization_says_which_there_are() -> None:
    offered = repository("m-Q4_K_M.gguf", "m-Q8_0.gguf", "n-Q8_0.gguf", "m-UD-Q2_K.gguf")
    found = gguf_variants(offered)
    assert chosen(offered, found, "q4_k_m").files[0].path == "m-Q4_K_M.gguf"
    assert chosen(offered, found, "Q2_K").quantization == "UD-Q2_K"
    assert chosen(offered, found, file="n-Q8_0.gguf").files[0].path == "n-Q8_0.gguf"
    with pytest.raises(RemoteNotFoundError, match=r"no Q3_K.*There are: Q4_K_M, Q8_0, UD-Q2_K"):
        chosen(offered, found, "Q3_K")
    with pytest.raises(UsageError, match=r"several.*me/m/m-Q8_0.gguf or me/m/n-Q8_0.gguf"):
        chosen(offered, found, "Q8_0")


def test_a_folder_holds_what_a_model_needs_and_nothing_that_runs() -> None:
    names = ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "LICENSE", "modeling_x.py",
             "pytorch_model.bin", "onnx/model.onnx", "original/params.json", "logo.png")  # fmt: skip
    found = folder_variant(repository(*names))
    assert found is not None
    assert {f.path for f in found.files} == {
        "config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "LICENSE",
    }  # fmt: skip
    assert folder_variant(repository("model.safetensors")) is None
    assert is_mlx(repository(tags=("mlx",)))
    assert not is_mlx(repository(tags=("gguf",)))
