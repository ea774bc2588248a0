"""Ollama's store: names, what a model brings along, and what is wrong with a broken one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from localllm.store.foreign.ollama import in_ollama, settings
from tests.store.foreign.places import KINDS, manifest, ollama

PARAMETERS = {"temperature": 0.6, "top_k": 20, "stop": ["<|im_end|>", "<|im_start|>"], "num_ctx": 8192, "mirostat": 1}


def test_names_leave_out_what_ollama_leaves_out(tmp_path: Path) -> None:
    for name, host in [
        ("library/qwen3/0.6b", "registry.ollama.ai"),
        ("library/llama3.2/latest", "registry.ollama.ai"),
        ("me/own/v1", "registry.ollama.ai"),
        ("owner/Repo-GGUF/Q4_K_M", "hf.co"),
    ]:
        ollama(tmp_path, name, [("model", b"GGUF of " + name.encode())], host=host)
    found = {model.name: model for model in in_ollama(tmp_path)}
    names = ["ollama:hf.co/owner/Repo-GGUF:Q4_K_M", "ollama:llama3.2:latest", "ollama:me/own:v1", "ollama:qwen3:0.6b"]
    assert list(found) == names
    assert not any(model.problem for model in found.values())
    small = found["ollama:qwen3:0.6b"]
    assert small.path.read_bytes() == b"GGUF of library/qwen3/0.6b"
    assert small.bytes == small.path.stat().st_size
    assert found["ollama:llama3.2:latest"].answers_to("llama3.2")
    assert not small.answers_to("qwen3")


def test_parameters_system_prompt_and_adapters_are_taken_over(tmp_path: Path) -> None:
    layers = [
        ("model", b"weights"),
        ("template", b"{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>{{ end }}"),
        ("system", "Antworte kurz — immer.".encode()),
        ("params", json.dumps(PARAMETERS).encode()),
        ("adapter", b"lora"),
        ("license", b"MIT"),
        ("projector", b"eyes"),
    ]
    ollama(tmp_path, "me/tuned/latest", layers)
    (model,) = in_ollama(tmp_path)
    said = settings(model)
    assert said.system == "Antworte kurz — immer."
    assert said.sampling == {"temperature": 0.6, "top_k": 20}
    assert isinstance(said.sampling["top_k"], int)
    assert said.stop == ("<|im_end|>", "<|im_start|>")
    assert said.template == "chatml"
    assert [path.read_bytes() for path in said.adapters] == [b"lora"]
    assert "mirostat, num_ctx are left out" in " ".join(said.notes)
    assert "pictures" in " ".join(said.notes)


def test_what_cannot_be_mapped_is_said(tmp_path: Path) -> None:
    layers = [
        ("model", b"w"), ("template", b"[INST] {{ .Prompt }}"), ("params", b"[1"), ("system", b"\xff"),
        ("messages", b"[]"),
    ]  # fmt: skip
    ollama(tmp_path, "library/odd/latest", layers)
    said = settings(in_ollama(tmp_path)[0])
    assert (said.system, said.sampling, said.stop, said.template) == ("", {}, (), "")
    text = " ".join(said.notes)
    for part in ("parameters are not JSON", "system prompt cannot be read", "example conversation", "Go's language"):
        assert part in text


def layer(**changes: Any) -> dict[str, Any]:
    return {"mediaType": f"{KINDS}model", "digest": "sha256:" + "a" * 64, "size": 1} | changes


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[]", "no layers"),
        ({"layers": {}}, "no layers"),
        ({"layers": []}, "manifest is empty"),
        ({"layers": ["x"]}, "a layer that is none"),
        ({"layers": [layer()]}, "model is missing (sha256-aaaaaaaaaaaa…)"),
        ({"layers": [layer(digest="sha256:../../../../etc/passwd")]}, "no hash"),
        ({"layers": [layer(digest=None)]}, "no hash"),
        ({"layers": [layer(size="1")]}, "without a size"),
        ({"layers": [layer(size=-1)]}, "without a size"),
        ({"layers": [layer(mediaType=f"{KINDS}license")]}, "has no GGUF"),
        ({"layers": [layer(), layer()]}, "in several pieces"),
    ],
)
def test_a_broken_manifest_is_listed_with_the_reason(tmp_path: Path, content: Any, said: str) -> None:
    manifest(tmp_path, "registry.ollama.ai/library/broken/latest", content)
    ollama(tmp_path, "library/whole/latest", [("model", b"weights")])
    broken, whole = in_ollama(tmp_path)
    assert (broken.name, whole.problem) == ("ollama:broken:latest", "")
    assert said in broken.problem


def test_an_interrupted_blob_and_hostile_names(tmp_path: Path) -> None:
    ollama(tmp_path, "library/short/latest", [("model", b"weights")])
    next((tmp_path / "blobs").iterdir()).write_bytes(b"wei")
    assert in_ollama(tmp_path)[0].problem == "its model has 3 bytes, not 7"
    odd = tmp_path / "manifests/registry.ollama.ai/library" / os.fsdecode(b"\x1b]52;c;\xff")
    odd.mkdir()
    (odd / "v\n1").write_bytes(b"{}")
    names = [model.name for model in in_ollama(tmp_path)]
    assert len(names) == 2
    assert all(name.isprintable() for name in names)
    assert in_ollama(tmp_path / "nothing here") == []
