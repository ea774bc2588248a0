"""What `rm`, `prune` and `du` take, leave and count: ours alone, and in shared caches what nothing else leads to."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from localllm.errors import ModelNotFoundError, UsageError
from localllm.paths import Home
from localllm.store.pulled import PulledModel
from localllm.store.registry import Registry
from localllm.tasks.disk_usage import disk_usage, total
from localllm.tasks.pruning import leftovers
from localllm.tasks.removing import plan_removal, remove
from tests.cli.helpers import fails, run
from tests.store.foreign.places import hub, ollama


@pytest.fixture
def registry(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return Registry(home)


def adapter(home: Home, name: str, base: str) -> Path:
    folder = home.adapters / name
    folder.mkdir(parents=True)
    (folder / "adapter.gguf").write_bytes(b"GGUF")
    (folder / "adapter.json").write_text(json.dumps({"base": {"name": base}}))
    return folder


def pulled(registry: Registry, root: Path, label: str, commit: str, content: bytes) -> PulledModel:
    snapshot = hub(root, "me/m", {f"m-{label}.gguf": content}, commit)
    files = ((f"m-{label}.gguf", len(content), label),)
    path = str(snapshot / f"m-{label}.gguf")
    model = PulledModel("me/m", label, "gguf", "me/m", "main", commit, path, files, "llama", label)
    registry.add_pulled(model)
    return model


def test_a_model_of_ones_own_goes_with_a_word_for_its_adapters(registry: Registry, guide_path: Path) -> None:
    home = registry.home
    home.models.mkdir(parents=True)
    shutil.copy(guide_path, home.models / "mine.gguf")
    folder = adapter(home, "hers", "mine")
    adapter(home, "other", "guide")
    removal = plan_removal(registry, "mine")
    assert (removal.kind, removal.breaks, removal.bytes) == ("model", ("hers",), guide_path.stat().st_size)
    fails(run("rm", "hers"), 2, "nobody can be asked", "--yes")
    assert folder.is_dir()
    report = run("rm", "mine", "--yes", "--json")
    assert report.json["broken_adapters"] == ["hers"]
    assert "Without it these adapters cannot be used: hers." in report.err
    assert not (home.models / "mine.gguf").exists()
    remove(plan_removal(registry, "hers"))
    assert [ref.name for ref in registry.adapters()] == ["other"]
    assert os.listdir(home.adapters) == ["other"]


def test_what_is_not_ours_stays(registry: Registry, tmp_path: Path, guide_path: Path) -> None:
    ollama(tmp_path / "ollama", "library/tiny/1b", [("model", guide_path.read_bytes())])
    hub(tmp_path / "hub", "owner/m", {"m-Q4_0.gguf": b"x"})
    for name, said in [
        ("tiny:1b", "ollama rm tiny:1b"), ("hub:owner/m", "hf cache rm"), ("guide", "part of the program"),
        (str(guide_path), "a file of yours"),
    ]:  # fmt: skip
        with pytest.raises(UsageError) as caught:
            plan_removal(registry, name, files=True)
        assert said in str(caught.value)
    with pytest.raises(ModelNotFoundError):
        plan_removal(registry, "nothing")


def test_of_a_pulled_model_only_the_note_goes_unless_told(registry: Registry, tmp_path: Path) -> None:
    root = tmp_path / "hub"
    small = pulled(registry, root, "Q4_0", "1" * 40, b"small")
    large = pulled(registry, root, "Q8_0", "1" * 40, b"larger")
    hub(root, "me/m", {"m-Q8_0.gguf": b"larger"}, "2" * 40)  # another revision leads to the same blob
    removal = plan_removal(registry, "me/m:Q4_0")
    assert (removal.bytes, removal.left) == (0, Path(small.path))
    remove(removal)
    assert Path(small.path).read_bytes() == b"small"
    registry.add_pulled(small)
    remove(plan_removal(registry, "me/m:Q4_0", files=True))
    assert not os.path.lexists(small.path)
    assert Path(large.path).read_bytes() == b"larger"
    remove(plan_removal(registry, "me/m:Q8_0", files=True))
    assert not os.path.lexists(large.path)
    assert [path.read_bytes() for path in (root / "models--me--m/blobs").iterdir()] == [b"larger"]
    assert registry.pulled() == []


def test_leftovers_are_ours_old_and_held_by_nobody(registry: Registry, tmp_path: Path) -> None:
    home, blobs = registry.home, tmp_path / "hub/models--me--m/blobs"
    blobs.mkdir(parents=True)
    old = time.time() - 10 * 86400
    data = tmp_path / "hub/datasets--me--d/blobs"
    data.mkdir(parents=True)
    for name in ("d.incomplete", "d.incomplete.proof"):
        (data / name).write_bytes(b"123")
        os.utime(data / name, (old, old))
    names = ["a.incomplete", "a.incomplete.proof", "b.incomplete", "c.incomplete", "c.incomplete.proof", "whole"]
    for name in names:
        (blobs / name).write_bytes(b"12345")
    for name in ("old", "held", "new"):
        (home.runs / name).mkdir(parents=True)
        (home.runs / name / "lock").touch()
    home.adapters.mkdir()
    (home.adapters / ".staging-x-999999999").mkdir()
    (home.adapters / f".staging-y-{os.getpid()}").mkdir()
    (home.root / ".keep").touch()
    for path in [*home.root.rglob("*"), *home.root.rglob(".*"), *blobs.iterdir()]:
        if "new" not in path.parts:
            os.utime(path, (old, old))
    locks = tmp_path / "hub/.locks/models--me--m"
    locks.mkdir(parents=True)
    with (locks / "c.lock").open("w") as fetching, (home.runs / "held/lock").open("r+") as training:
        fcntl.flock(fetching, fcntl.LOCK_EX)
        fcntl.flock(training, fcntl.LOCK_EX)
        found = leftovers(registry, 7)
    rows = [(one.kind, one.paths[0].name, one.bytes) for one in found]
    assert rows == [
        ("run", "old", 0),
        ("temporary", ".staging-x-999999999", 0),
        ("partial download", "d.incomplete", 6),
        ("partial download", "a.incomplete", 10),
    ]
    assert leftovers(registry, 11) == []
    report = run("prune", "--dry-run", "--json", "--older-than", "9").json
    assert not report["removed"]
    assert (home.runs / "old").is_dir()
    assert "are free" in run("prune", "--yes", "--older-than", "9").out
    assert sorted(path.name for path in blobs.iterdir()) == ["b.incomplete", "whole"]
    assert sorted(path.name for path in home.runs.iterdir()) == ["new"]
    assert "Nothing is left behind" in run("prune", "--older-than", "9").out
    fails(run("prune", "--older-than", "-1"), 2, "0 or more days")


def test_disk_usage_says_whose_it_is(registry: Registry, tmp_path: Path, guide_path: Path) -> None:
    pulled(registry, tmp_path / "hub", "Q4_0", "1" * 40, b"small")
    ollama(tmp_path / "ollama", "library/tiny/1b", [("model", guide_path.read_bytes())])
    ollama(tmp_path / "ollama", "library/tiny/latest", [("model", guide_path.read_bytes())])
    adapter(registry.home, "hers", "guide")
    (tmp_path / "hub/datasets--me--d/blobs").mkdir(parents=True)
    (tmp_path / "hub/datasets--me--d/blobs/x").write_bytes(b"rows")
    rows = {(row.what, row.owner): row for row in disk_usage(registry)}
    assert rows["pulled models", "localllm"].bytes == 5
    assert (rows["models", "Ollama"].count, rows["models", "Ollama"].bytes) == (2, guide_path.stat().st_size)
    assert rows["adapters", "localllm"].count == 1
    assert (rows["datasets", "the hub's cache"].count, rows["datasets", "the hub's cache"].bytes) == (1, 4)
    assert total(rows.values()) == 5 + rows["adapters", "localllm"].bytes + rows["cache", "localllm"].bytes
    assert "Ollama" in run("du").out
    assert run("du", "--json").json["bytes"] == total(disk_usage(registry))
