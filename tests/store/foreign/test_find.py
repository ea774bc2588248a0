"""Models of LM Studio, the hub's cache, llama.cpp and added folders: found, named, told apart, and never touched."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from localllm.errors import InvalidModelError, ModelNotFoundError, UsageError
from localllm.paths import Home
from localllm.store.foreign.added import add_folder, added_folders, forget_folder
from localllm.store.foreign.find import find_foreign, foreign_models
from localllm.store.foreign.places import Place, hub_cache, places
from localllm.store.registry import Registry
from tests.store.foreign.places import hub, ollama

MLX = {
    "config.json": json.dumps({"model_type": "llama", "quantization": {"bits": 4}}).encode(),
    "model.safetensors": b"weights",
    "tokenizer.json": b"{}",
}


def write(path: Path, content: bytes = b"GGUF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_where_each_program_keeps_its_models(tmp_path: Path) -> None:
    home = tmp_path / "me"
    write(home / ".lmstudio/settings.json", json.dumps({"downloadsFolder": "/big/disk"}).encode())
    found = [(place.source, str(place.folder)) for place in places({}, home, "linux", [Path("/mine")])]
    assert found == [
        ("ollama", f"{home}/.ollama/models"),
        ("ollama", "/usr/share/ollama/.ollama/models"),
        ("lmstudio", "/big/disk"),
        ("lmstudio", f"{home}/.lmstudio/models"),
        ("lmstudio", f"{home}/.cache/lm-studio/models"),
        ("hub", f"{home}/.cache/huggingface/hub"),
        ("llama.cpp", f"{home}/.cache/llama.cpp"),
        ("folder", "/mine"),
    ]
    said = {"OLLAMA_MODELS": "/o", "HF_HOME": "/h", "LLAMA_CACHE": "/l"}
    assert {p.folder for p in places(said, home, "darwin", []) if p.source != "lmstudio"} == {
        Path("/o"), Path("/h/hub"), Path("/l"),
    }  # fmt: skip
    mac = places({}, home, "darwin", [])
    assert Place("llama.cpp", home / "Library/Caches/llama.cpp") in mac
    assert hub_cache({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}, home) == Path("/c")
    assert hub_cache({"XDG_CACHE_HOME": "/x"}, home) == Path("/x/huggingface/hub")


def test_lm_studios_folders(tmp_path: Path) -> None:
    write(tmp_path / "owner/one-GGUF/one-Q4_K_M.gguf")
    write(tmp_path / "owner/one-GGUF/mmproj-one.gguf")
    for number in (1, 2):
        write(tmp_path / f"owner/split/big-Q8_0-0000{number}-of-00002.gguf", b"12345")
    write(tmp_path / "owner/half/big-00001-of-00002.gguf")
    for name, content in MLX.items():
        write(tmp_path / "mlx-community/tiny-4bit" / name, content)
    write(tmp_path / "owner/empty/e.gguf", b"")
    found = {model.name: model for model in foreign_models([Place("lmstudio", tmp_path)])}
    assert {name: model.problem for name, model in found.items()} == {
        "lmstudio:mlx-community/tiny-4bit": "",
        "lmstudio:owner/empty/e": "e.gguf is empty",
        "lmstudio:owner/half/big-00001-of-00002": "big-00002-of-00002.gguf cannot be read (No such file or directory)",
        "lmstudio:owner/one-GGUF/one-Q4_K_M": "",
        "lmstudio:owner/split/big-Q8_0-00001-of-00002": "",
    }
    assert found["lmstudio:owner/split/big-Q8_0-00001-of-00002"].bytes == 10
    assert found["lmstudio:mlx-community/tiny-4bit"].format == "mlx"
    models = list(found.values())
    one = found["lmstudio:owner/one-GGUF/one-Q4_K_M"]
    for name in ("owner/one-GGUF", "owner/one-gguf:q4_k_m", "one-Q4_K_M", "lmstudio:owner/one-GGUF/one-Q4_K_M.gguf"):
        assert find_foreign(models, name) == one, name
    assert find_foreign(models, "owner/one") is None
    with pytest.raises(InvalidModelError, match=r"e\.gguf is empty"):
        find_foreign(models, "lmstudio:owner/empty/e")
    assert find_foreign(models, "owner/empty/e") is None  # said of the hub's, too


def test_the_hubs_cache(tmp_path: Path) -> None:
    files = {"m-Q4_K_M.gguf": b"4", "m-Q8_0.gguf": b"88", "sub/m-F16.gguf": b"16", "README.md": b"#"}
    snapshot = hub(tmp_path, "owner/m-GGUF", files)
    hub(tmp_path, "mlx-community/m-4bit", MLX)
    hub(tmp_path, "openai/ears", {"config.json": b'{"architectures": ["Ears"]}', "model.safetensors": b"w"})
    hub(tmp_path, "gone/m", {"m-Q4_0.gguf": b"x"})
    for blob in (tmp_path / "models--gone--m/blobs").iterdir():
        blob.unlink()
    models = foreign_models([Place("hub", tmp_path)])
    assert [model.name for model in models] == [
        "hub:gone/m:Q4_0", "hub:mlx-community/m-4bit", "hub:owner/m-GGUF:F16", "hub:owner/m-GGUF:Q4_K_M",
        "hub:owner/m-GGUF:Q8_0",
    ]  # fmt: skip
    assert models[0].problem == "m-Q4_0.gguf leads to a file that is gone"
    found = find_foreign(models, "owner/m-GGUF:q8_0")
    assert found is not None
    assert found.path == snapshot / "m-Q8_0.gguf"
    with pytest.raises(ModelNotFoundError, match="Several models answer to 'owner/m-GGUF'"):
        find_foreign(models, "owner/m-GGUF")


def test_a_newer_snapshot_takes_the_place_of_the_older(tmp_path: Path) -> None:
    hub(tmp_path, "owner/m", {"m-Q4_0.gguf": b"old"}, "1" * 40)
    hub(tmp_path, "owner/m", {"m-Q4_0.gguf": b"new"}, "2" * 40)
    (model,) = foreign_models([Place("hub", tmp_path)])
    assert model.path.read_bytes() == b"new"


def test_added_folders_are_remembered_and_forgotten(home: Home, tmp_path: Path) -> None:
    models = tmp_path / "my models"
    write(models / "deep/er/a.gguf")
    write(models / os.fsdecode(b"\xff\x1b[2J.gguf"))
    os.symlink(models, models / "loop")
    assert add_folder(home.folders_file, models) == models
    assert add_folder(home.folders_file, models / "deep/..") == models
    assert added_folders(home.folders_file) == [models]
    names = [model.name for model in foreign_models([Place("folder", models)])]
    assert len(names) == 2
    assert "folder:deep/er/a" in names
    assert all(name.isprintable() for name in names)
    with pytest.raises(UsageError, match="is not a folder"):
        add_folder(home.folders_file, tmp_path / "nowhere")
    forget_folder(home.folders_file, models)
    with pytest.raises(UsageError, match="was not added"):
        forget_folder(home.folders_file, models)
    home.folders_file.write_text("{nonsense")
    assert added_folders(home.folders_file) == []


def test_the_registry_knows_them_by_name(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guide_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    ollama(tmp_path / "ollama", "library/tiny/1b", [("model", guide_path.read_bytes()), ("system", b"Be brief.")])
    hub(tmp_path / "hub", "owner/tiny", {"t-Q4_0.gguf": b"x"})
    registry = Registry(home)
    for name in ("ollama:tiny:1b", "tiny:1b", "OLLAMA:Tiny:1B"):
        found = registry.model(name)
        assert (found.name, found.source, found.system) == ("ollama:tiny:1b", "foreign", "Be brief.")
        assert found.path.is_relative_to(tmp_path / "ollama/blobs")
    assert registry.model("owner/tiny").name == "hub:owner/tiny:Q4_0"
    with pytest.raises(ModelNotFoundError, match="Did you mean ollama:tiny:1b"):
        registry.model("ollama:tiny:2b")
