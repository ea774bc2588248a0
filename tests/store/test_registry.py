"""Names and paths to models and adapters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from localllm.errors import AdapterError, AdapterMismatchError, AdapterNotFoundError, ModelNotFoundError
from localllm.paths import Home
from localllm.store.registry import MANIFEST, Registry
from localllm.tasks.listing import list_adapters
from tests.engine.helpers import write_adapter


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


def staged(home: Home, base_sha256: str, name: str = "staging") -> Path:
    folder = home.adapters / name
    folder.mkdir(parents=True)
    write_adapter(folder / "adapter.gguf", {"blk.0.attn_q.weight": (256, 256)})
    (folder / MANIFEST).write_text(json.dumps({"base": {"name": "guide", "sha256": base_sha256}}))
    return folder


def test_the_built_in_model_has_a_name(registry: Registry, guide_path: Path) -> None:
    model = registry.model("guide")
    assert (model.path, model.source) == (guide_path, "built-in")
    assert model.chunk_tokens


def test_a_file_in_the_home_has_its_stem_for_a_name(registry: Registry, home: Home, guide_path: Path) -> None:
    home.models.mkdir(parents=True)
    shutil.copy(guide_path, home.models / "mine.gguf")
    assert registry.model("mine").source == "home"
    assert [model.name for model in registry.models()] == ["guide", "mine"]


def test_a_path_is_taken_as_it_is(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x.gguf"
    shutil.copy(guide_path, copy)
    assert registry.model(str(copy)).path == copy


@pytest.mark.parametrize(
    "name, match", [("guid", "Did you mean guide"), ("./none.gguf", "There is no file"), ("none.gguf", "no file")]
)
def test_an_unknown_model_says_what_there_is(registry: Registry, name: str, match: str) -> None:
    with pytest.raises(ModelNotFoundError) as info:
        registry.model(name)
    assert match in str(info.value)


def test_an_adapter_is_published_whole_and_found_by_name(registry: Registry, home: Home, guide_path: Path) -> None:
    sha = registry.sha256(guide_path)
    published = registry.publish_adapter("tickets", staged(home, sha))
    assert registry.adapter("tickets") == published
    assert registry.adapter(str(published.path.parent)).base_sha256 == sha
    assert [adapter.name for adapter in registry.adapters()] == ["tickets"]
    assert registry.adapter_for("tickets", registry.model("guide")) == published
    registry.publish_adapter("tickets", staged(home, sha, "second"))
    assert [path.name for path in home.adapters.iterdir()] == ["tickets"]


def test_an_adapter_without_its_manifest_does_not_exist(registry: Registry, home: Home) -> None:
    folder = staged(home, "0" * 64, "half")
    (folder / MANIFEST).unlink()
    assert registry.adapters() == []
    with pytest.raises(AdapterNotFoundError):
        registry.adapter("half")
    with pytest.raises(AdapterError, match="not finished"):
        registry.publish_adapter("half", folder)


def test_an_adapter_whose_manifest_is_damaged_hides_no_other(registry: Registry, home: Home) -> None:
    for name, text in (("good", '{"base": {}}'), ("bad", "{")):
        folder = home.adapters / name
        folder.mkdir(parents=True)
        (folder / "adapter.json").write_text(text)
    assert [adapter.name for adapter in registry.adapters()] == ["bad", "good"]
    rows = {row["name"]: row.get("error") for row in list_adapters(registry)}
    assert rows == {"bad": "its adapter.json cannot be read", "good": None}
    with pytest.raises(AdapterError, match="cannot be read"):
        registry.adapter("bad")


def test_an_adapter_for_other_bytes_is_refused(registry: Registry, home: Home) -> None:
    registry.publish_adapter("other", staged(home, "f" * 64))
    with pytest.raises(AdapterMismatchError, match="content hash ffffffffffff"):
        registry.adapter_for("other", registry.model("guide"))


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "x" * 65])
def test_names_stay_inside_the_home(registry: Registry, name: str) -> None:
    with pytest.raises(AdapterError, match="cannot be an adapter's name"):
        registry.adapter_dir(name)


def test_a_hash_is_read_again_only_when_the_file_changed(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = registry.sha256(path)
    assert registry.sha256(path) == first
    path.write_bytes(b"other")
    assert registry.sha256(path) != first
    import hashlib

    assert registry.sha256(path) == hashlib.sha256(b"other").hexdigest()
