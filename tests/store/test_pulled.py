"""Pulled models by name, and what becomes of them when the cache is tidied."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from localllm.errors import ModelNotFoundError
from localllm.paths import Home
from localllm.store import catalog
from localllm.store.pulled import PulledModel
from localllm.store.registry import Registry


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


@pytest.fixture
def model(tmp_path: Path, guide_path: Path) -> PulledModel:
    folder = tmp_path / "snapshots" / "c"
    (folder / "Q4").mkdir(parents=True)
    shutil.copy(guide_path, folder / "Q4" / "m-Q4_0.gguf")
    size = guide_path.stat().st_size
    return PulledModel(
        "me/m", "Q4_0", "gguf", "me/m", "main", "c", str(folder / "Q4/m-Q4_0.gguf"),
        (("Q4/m-Q4_0.gguf", size, "0" * 64),), "llama", "Q4_0",
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["me/m", "me/m:Q4_0", "ME/M:q4_0", "me/m/Q4/m-Q4_0.gguf", "hf.co/me/m", "https://huggingface.co/me/m:Q4_0"],
)
def test_a_pulled_model_answers_to_all_its_names(registry: Registry, model: PulledModel, name: str) -> None:
    registry.add_pulled(model)
    found = registry.model(name)
    assert (found.name, found.source, found.path) == ("me/m:Q4_0", "hub", Path(model.path))


def test_without_a_quantization_the_largest_is_meant(registry: Registry, model: PulledModel) -> None:
    other = Path(model.path).with_name("m-Q8_0.gguf")
    other.write_bytes(Path(model.path).read_bytes() + b"0" * 100)
    larger = (("Q4/m-Q8_0.gguf", other.stat().st_size, "1" * 64),)
    registry.add_pulled(replace(model, label="Q8_0", path=str(other), files=larger))
    registry.add_pulled(model)
    assert registry.model("me/m").name == "me/m:Q8_0"
    assert [m.full_name for m in registry.pulled()] == ["me/m:Q4_0", "me/m:Q8_0"]


def test_a_card_says_which_is_meant_and_what_it_is(
    registry: Registry, model: PulledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = tmp_path / "cards"
    cards.mkdir()
    text = 'name = "tiny"\ntitle = "Tiny"\n[gguf]\nrepo = "me/m"\nquantization = "Q4_0"\n[sampling]\ntop_k = 20\n'
    (cards / "tiny.toml").write_text(text)
    monkeypatch.setattr(catalog, "builtin_models", lambda: cards)
    with pytest.raises(ModelNotFoundError, match=r"tiny is not on this machine yet.*localllm pull tiny"):
        registry.model("tiny")
    registry.add_pulled(replace(model, name="tiny"))
    registry.add_pulled(replace(model, name="tiny", label="Q8_0"))
    found = registry.model("tiny")
    assert (found.name, found.title, found.sampling) == ("tiny:Q4_0", "Tiny", {"top_k": 20.0})
    assert registry.model("me/m:q8_0").name == "tiny:Q8_0"
    assert catalog.name_of("Me/M") == "tiny"


def test_a_model_whose_files_went_says_how_to_fetch_it_again(registry: Registry, model: PulledModel) -> None:
    registry.add_pulled(model)
    Path(model.path).write_bytes(b"short")
    with pytest.raises(ModelNotFoundError, match=r"has changed since it was pulled.*localllm pull me/m:Q4_0"):
        registry.model("me/m")
    Path(model.path).unlink()
    with pytest.raises(ModelNotFoundError, match="no longer in the hub's cache"):
        registry.model("me/m")


def test_a_manifest_that_cannot_be_read_is_as_if_it_were_not_there(registry: Registry, model: PulledModel) -> None:
    registry.add_pulled(model)
    (path,) = registry.home.pulled.iterdir()
    for content in ("", "[]", '{"files": []}', '{"files": [["a", 1, "x"]], "unknown": 1}'):
        path.write_text(content)
        assert registry.pulled() == []


def test_an_unknown_name_like_one_of_the_hub_says_how_to_get_it(registry: Registry) -> None:
    with pytest.raises(ModelNotFoundError, match="localllm pull someone/model"):
        registry.model("someone/model")


def test_facts_are_computed_again_only_when_a_file_changed(registry: Registry, tmp_path: Path) -> None:
    path, seen = tmp_path / "x", list[Path]()
    path.write_text("1")

    def compute(path: Path) -> str:
        seen.append(path)
        return path.read_text()

    assert registry.headers.values([path, path], compute) == ["1", "1"]
    path.write_text("22")
    assert registry.headers.values([path], compute) == ["22"]
    assert len(seen) == 2
