"""`list`, `show` and `doctor`."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from localllm.paths import Home
from tests.cli.helpers import fails, run


def test_list_has_the_built_in_model(home: Home) -> None:
    report = run("list", "--json").json
    assert [model["name"] for model in report["models"]] == ["guide"]
    assert report["adapters"] == []
    text = run("list").out
    assert "guide" in text
    assert "localllm finetune" in text


def test_list_says_what_is_wrong_with_a_file(home: Home, guide_path: Path) -> None:
    home.models.mkdir(parents=True)
    (home.models / "broken.gguf").write_bytes(b"GGUF")
    shutil.copy(guide_path, home.models / "mine.gguf")
    models = {model["name"]: model for model in run("list", "--json").json["models"]}
    assert "error" in models["broken"]
    assert models["mine"]["architecture"] == "llama"
    assert "unusable" in run("list").out


def test_list_all_shows_what_other_programs_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    models = tmp_path / "mine"
    models.mkdir()
    (models / "broken\x1b[2J.gguf").write_bytes(b"GGUF")
    added = run("list", "--add", models)
    assert f"looked for in {models}" in added.err
    assert "unusable" in added.out
    assert "\x1b" not in added.out + run("list", "--all").out
    (row,) = run("list", "--all", "--json").json["foreign"]
    assert (row["source"], row["owner"]) == ("folder", "the folder that holds broken\x1b[2J.gguf")
    assert "foreign" not in run("list", "--json").json
    assert run("list", "--forget", models).code == 0
    assert "No models of other programs" in run("list", "--all").err
    fails(run("list", "--add", tmp_path / "nowhere"), 2, "is not a folder")


def test_show_has_path_and_hash(guide_path: Path) -> None:
    facts = run("show", "guide", "--json").json
    assert Path(facts["path"]) == guide_path
    assert facts["sha256"] == hashlib.sha256(guide_path.read_bytes()).hexdigest()
    assert facts["context"] == 2048
    assert "sha256" in run("show", guide_path).out
    fails(run("show", "nothing"), 1, "There is no model or adapter 'nothing'")
    fails(run("show", guide_path.parent), 1, "is a folder")


def test_doctor_finds_this_machine_fit() -> None:
    report = run("doctor", "--json").json
    status = {finding["name"]: finding["status"] for finding in report["findings"]}
    assert report["healthy"]
    assert status["built-in model"] == "ok"
    assert status["training"] == "ok", "the fast BLAS is there"
    assert {"python", "packages", "memory", "disk", "home", "inference"} <= status.keys()
