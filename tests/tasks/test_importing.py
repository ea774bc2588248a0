"""Import: every format becomes the same adapter of ours, and what goes wrong leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from localllm.errors import AdapterError, AdapterMismatchError, AdapterNotFoundError, CancelledError, LocalLLMError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.foreign import read_foreign
from localllm.tasks.importing import Imported, ImportNote, ImportRequest, ImportStarted, import_adapter
from localllm.weights import mlx_lm
from localllm.weights.adapter import Adapter, read_folder
from localllm.weights.gguf import read_header
from localllm.weights.names import EMBEDDING
from tests.weights.bases import base, pair

GOLDEN = Path(__file__).parents[1] / "weights/adapters"
LLAMA = GOLDEN / "llama.gguf"


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


def imported(
    registry: Registry, adapter: Path, model: Path = LLAMA, name: str = "a", overwrite: bool = False
) -> list[object]:
    return list(import_adapter(registry, ImportRequest(adapter, str(model), name, overwrite)))


def test_every_format_becomes_the_same_adapter(registry: Registry, tmp_path: Path) -> None:
    plain = GOLDEN / "llama-plain"
    started, done = imported(registry, plain, name="peft")
    assert isinstance(started, ImportStarted)
    assert isinstance(done, Imported)
    assert (started.format, started.layers, started.rank, started.alpha) == ("peft", 14, 4, 8.0)
    folder = done.adapter.path.parent
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter.gguf", "adapter.json", "adapter_config.json", "adapters.safetensors",
    ]  # fmt: skip
    sources = {"gguf": plain / "adapter.gguf", "localllm": folder, "mlx-lm": tmp_path / "mlx"}
    sources["mlx-lm"].mkdir()
    mlx_lm.write(sources["mlx-lm"], read_folder(folder))
    expected = read_folder(folder).tensors()
    for name, source in sources.items():
        again = imported(registry, source, name=name)[-1]
        assert isinstance(again, Imported)
        assert again.format == name
        found = read_folder(again.adapter.path.parent)
        assert (found.rank, found.alpha) == (4, 8.0)
        assert set(found.tensors()) == set(expected)
        assert all(np.array_equal(found.tensors()[key], value) for key, value in expected.items())
    assert [ref.name for ref in registry.adapters()] == ["gguf", "localllm", "mlx-lm", "peft"]


def test_the_manifest_says_where_it_came_from(registry: Registry) -> None:
    done = imported(registry, GOLDEN / "llama-plain")[-1]
    assert isinstance(done, Imported)
    manifest = registry.manifest(done.adapter)
    assert manifest["name"] == "a"
    assert manifest["base"] == {"name": "llama", "sha256": registry.sha256(LLAMA), "path": str(LLAMA.resolve())}
    source = manifest["source"]
    assert source["format"] == "peft"
    weights = GOLDEN / "llama-plain/adapter_model.safetensors"
    assert source["files"]["adapter_model.safetensors"] == registry.sha256(weights)
    metadata = read_header(done.adapter.path).metadata
    assert metadata["localllm.base.sha256"] == registry.sha256(LLAMA) == done.adapter.base_sha256
    assert metadata["localllm.source.sha256"] == source["sha256"]
    assert registry.adapter_for("a", registry.model(str(LLAMA))) == done.adapter


def test_other_bytes_of_the_base_are_worth_a_note(registry: Registry, tmp_path: Path) -> None:
    imported(registry, GOLDEN / "llama-plain")
    other = tmp_path / "other.gguf"
    content = bytearray(LLAMA.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    for source in (registry.adapter("a").path, registry.adapter("a").path.parent):
        notes = [e.message for e in imported(registry, source, other, "b", overwrite=True) if isinstance(e, ImportNote)]
        assert len(notes) == 1
        assert "made for other bytes" in notes[0]


def test_a_name_is_taken_only_when_asked_for(registry: Registry) -> None:
    imported(registry, GOLDEN / "llama-plain")
    with pytest.raises(AdapterError, match="already an adapter named 'a'"):
        imported(registry, GOLDEN / "llama-ends")
    done = imported(registry, GOLDEN / "llama-ends", overwrite=True)[-1]
    assert isinstance(done, Imported)
    assert len(read_folder(done.adapter.path.parent).layers) == 4


def broken(tmp_path: Path) -> list[tuple[Path, type[LocalLLMError], str]]:
    """Sources that cannot be imported, with the error and what it says."""
    empty, many = tmp_path / "empty", tmp_path / "many"
    for folder in (empty, many):
        folder.mkdir()
    for name in ("x", "y"):
        shutil.copy(GOLDEN / "llama-plain/adapter.gguf", many / f"{name}.gguf")
    pickle, text = tmp_path / "adapter_model.bin", tmp_path / "notes.txt"
    pickle.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    text.write_text("hello")
    return [
        (tmp_path / "none", AdapterNotFoundError, "no file or folder"),
        (empty, AdapterError, r"holds no adapter .* or a folder with adapter_config\.json"),
        (many, AdapterError, "holds 2 GGUF files: name one"),
        (pickle, AdapterError, r"adapter_model\.bin is a pickle"),
        (text, AdapterError, "no adapter that localllm knows"),
        (GOLDEN / "llama-plain/adapter_model.safetensors", AdapterError, r"Name the folder: .*llama-plain"),
        (LLAMA, AdapterError, "is a GGUF, but not a LoRA adapter"),
        (
            GOLDEN / "qwen3-rslora",
            AdapterMismatchError,
            r"k_proj .*\(32, 32\), but blk\.0\.attn_k\.weight .* \(16, 32\)",
        ),
        (GOLDEN / "qwen3-rslora/adapter.gguf", AdapterMismatchError, "is for qwen3 models"),
    ]


def test_what_cannot_be_imported_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    for source, kind, problem in broken(tmp_path):
        with pytest.raises(kind, match=problem):
            imported(registry, source)
    with pytest.raises(AdapterError, match="cannot be an adapter's name"):
        imported(registry, GOLDEN / "llama-plain", name="../a")
    assert not [path for path in registry.home.adapters.glob("**/*") if path.is_file()]


def test_an_embedding_that_is_the_output_is_refused_with_the_command_that_merges(
    registry: Registry, tmp_path: Path
) -> None:
    tied = base(tmp_path / "tied.gguf", tied=True).path
    folder = tmp_path / "mlx"
    folder.mkdir()
    mlx_lm.write(folder, Adapter(2, 4.0, {EMBEDDING: pair((40, 32), 2, 0, embedding=True)}))
    with pytest.raises(AdapterError) as caught:
        imported(registry, folder, tied)
    assert f"localllm export {folder} --model {tied} --to merged --out" in caught.value.hint


def test_stopping_leaves_nothing_behind(registry: Registry) -> None:
    cancel = threading.Event()
    events = import_adapter(registry, ImportRequest(GOLDEN / "llama-plain", str(LLAMA), "a"), cancel)
    next(events)
    cancel.set()
    with pytest.raises(CancelledError):
        list(events)
    assert not list(registry.home.adapters.iterdir())


def test_a_folder_with_one_gguf_is_that_file(registry: Registry, tmp_path: Path) -> None:
    lora = tmp_path / "f/x.gguf"
    lora.parent.mkdir()
    shutil.copy(GOLDEN / "llama-plain/adapter.gguf", lora)
    model = registry.model(str(LLAMA))
    found = read_foreign(registry, lora.parent, model, read_header(LLAMA))
    assert (found.format, found.gguf) == ("gguf", lora)
    assert found.files == {"x.gguf": registry.sha256(lora)}
    assert read_foreign(registry, GOLDEN / "llama-plain", model, read_header(LLAMA)).gguf is None


def test_an_adapter_of_ours_with_a_damaged_manifest_is_still_one(registry: Registry, tmp_path: Path) -> None:
    done = imported(registry, GOLDEN / "llama-plain")[-1]
    assert isinstance(done, Imported)
    copy = tmp_path / "copy"
    shutil.copytree(done.adapter.path.parent, copy)
    for content in ("{", json.dumps([]), json.dumps({"base": None})):
        (copy / "adapter.json").write_text(content)
        assert isinstance(imported(registry, copy, name="b", overwrite=True)[-1], Imported)
