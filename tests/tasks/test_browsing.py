"""Rows of what can be used and had: whose they are, what they take, what hangs on them, what a search finds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from localllm.paths import Home
from localllm.store.pulled import PulledModel
from localllm.store.registry import Registry
from localllm.tasks import model_facts
from localllm.tasks.browsing import Listed, browse, from_catalog, here, matches, stamp, verdict
from localllm.tasks.choosing import model_choices
from localllm.tasks.estimate import estimate
from localllm.tasks.removing import plan_removal, remove
from tests.store.foreign.places import hub, ollama
from tests.store.foreign.test_find import MLX

GB = 10**9


@pytest.fixture
def registry(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return Registry(home)


def rows(registry: Registry, **options: Any) -> dict[str, Listed]:
    return {row.name: row for batch in browse(registry, **options) for row in batch}


def test_what_is_here_comes_first_and_says_whose_it_is_and_what_it_takes(
    registry: Registry, tmp_path: Path, guide_path: Path
) -> None:
    registry.home.models.mkdir(parents=True)
    shutil.copy(guide_path, registry.home.models / "mine.gguf")
    (registry.home.models / "broken.gguf").write_bytes(b"GGUF")
    ollama(tmp_path / "ollama", "library/tiny/1b", [("model", guide_path.read_bytes())])
    hub(tmp_path / "hub", "mlx-community/tiny", MLX)
    for name, base in (("cats", {"name": "mine"}), ("dogs", {"path": str(registry.home.models / "mine.gguf")})):
        folder = registry.home.adapters / name
        folder.mkdir(parents=True)
        (folder / "adapter.json").write_text(json.dumps({"base": base}))
    found = rows(registry, memory=4 * GB)
    names = [name for name, row in found.items() if row.place == "here"]
    assert names == ["guide", "broken", "mine", "ollama:tiny:1b", "hub:mlx-community/tiny"]
    assert [found[name].whose for name in names] == ["built-in", "yours", "yours", "Ollama", "hub cache"]
    assert found["mine"].adapters == ("cats", "dogs")
    assert found["mine"].is_ours
    assert not found["ollama:tiny:1b"].is_ours
    assert "error" not in str(found["mine"].problem)
    assert found["broken"].problem
    assert found["broken"].verdict == ""
    assert found["hub:mlx-community/tiny"].format == "mlx"
    assert found["guide"].needs == estimate(registry, "guide").chat.needed  # as `localllm fit` says
    assert found["guide"].context == 2048
    assert list(found)[-1] == "qwen3-14b"
    tight = rows(registry, memory=found["guide"].needs)["guide"]
    assert tight.verdict == "tight"


def test_a_second_look_opens_nothing_unless_the_context_is_another(
    registry: Registry, guide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rows(registry, n_ctx=512)["guide"]
    opened: list[Path] = []
    read = model_facts.read_model
    monkeypatch.setattr(model_facts, "read_model", lambda path: (opened.append(path), read(path))[1])
    assert rows(registry, n_ctx=512)["guide"] == first
    assert opened == []
    other = rows(registry, n_ctx=2048)["guide"]
    assert len(opened) == 1
    assert other.needs > first.needs  # type: ignore[operator]


@pytest.mark.parametrize("needs, memory, said", [
    (90, 100, "fits"), (91, 100, "tight"), (100, 100, "tight"), (101, 100, "too big"), (None, 100, ""), (1, None, ""),
])  # fmt: skip
def test_the_verdict_leaves_a_tenth_free(needs: int | None, memory: int | None, said: str) -> None:
    assert verdict(needs, memory) == said


def test_the_catalog_knows_sizes_before_anything_is_asked(registry: Registry) -> None:
    found = {row.name: row for row in from_catalog(registry, 8 * GB)}
    assert all(row.about and row.bytes and row.needs and row.repo for row in found.values())
    # Sizes of the real files, in GB, as their repositories list them.
    for name, size in (("llama-3.1-8b", 4.92), ("qwen3-8b", 5.03), ("qwen3-0.6b", 0.64), ("phi-4", 9.05)):
        assert found[name].bytes == pytest.approx(size * GB, rel=0.1), name
    assert (found["smollm2-135m"].verdict, found["qwen3-14b"].verdict) == ("fits", "too big")


def test_a_search_looks_at_names_languages_abilities_and_adapters(registry: Registry) -> None:
    catalog = from_catalog(registry, None)

    def names(text: str) -> set[str]:
        return {row.name for row in catalog if matches(row, text)}

    assert names("") == {row.name for row in catalog}
    assert names("QWEN3 thinking") >= {"qwen3-0.6b", "qwen3-14b"}
    assert "llama-3.2-3b" in names("thai")
    assert names("apache-2.0 coder") == {"qwen2.5-coder-7b"}
    assert names("nothing-like-it") == set()
    assert matches(Listed("a", "here", "yours", adapters=("tickets",)), "tick yours")


def test_the_stamp_changes_when_something_comes_or_goes(registry: Registry, tmp_path: Path, guide_path: Path) -> None:
    seen = [stamp(registry)]
    registry.home.models.mkdir(parents=True)
    (registry.home.models / "a.gguf").write_bytes(b"")
    seen.append(stamp(registry))
    hub(tmp_path / "hub", "me/m", {"m-Q4_0.gguf": b"x"})
    seen.append(stamp(registry))
    hub(tmp_path / "hub", "me/m", {"m-Q8_0.gguf": b"y"})
    seen.append(stamp(registry))
    assert len(set(seen)) == 4
    assert stamp(registry) == seen[-1]


def test_a_pulled_model_whose_files_are_gone_is_shown_and_can_be_deleted(registry: Registry) -> None:
    files = (("m-Q4_0.gguf", 10, "0"),)
    gone = PulledModel("me/m", "Q4_0", "gguf", "me/m", "main", "c" * 40, "/none/c/m-Q4_0.gguf", files, "llama", "Q4_0")
    registry.add_pulled(gone)
    row = rows(registry)["me/m:Q4_0"]
    assert "no longer in the hub's cache" in row.problem
    remove(plan_removal(registry, "me/m:Q4_0"))
    assert registry.pulled() == []


def test_the_switcher_offers_all_that_is_here(registry: Registry, tmp_path: Path, guide_path: Path) -> None:
    ollama(tmp_path / "ollama", "library/tiny/1b", [("model", guide_path.read_bytes())])
    assert [row.name for row in model_choices(registry, 1024)] == ["guide", "ollama:tiny:1b"]
    assert all(row.n_ctx == 1024 and row.needs for batch in here(registry, 1024) for row in batch)
