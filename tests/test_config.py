"""Defaults, then the file, then the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.config import Settings, load_settings
from localllm.errors import UsageError
from localllm.paths import Home


def test_later_sources_win(home: Home) -> None:
    assert load_settings(home, {}) == Settings()
    home.root.mkdir(parents=True)
    home.config_file.write_text('model = "mine"\nthreads = 3\n')
    settings = load_settings(home, {"LOCALLLM_MODEL": "theirs", "UNRELATED": "1"})
    assert (settings.model, settings.threads) == ("theirs", 3)


@pytest.mark.parametrize(
    "content, match", [("modle = 'x'", "unknown keys: modle"), ("ctx = 'x'", "ctx"), ("= 1", "be read")]
)
def test_a_mistake_in_the_file_names_it(home: Home, content: str, match: str) -> None:
    home.root.mkdir(parents=True)
    home.config_file.write_text(content)
    with pytest.raises(UsageError, match=match) as info:
        load_settings(home, {})
    assert str(home.config_file) in str(info.value)


def test_the_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCALLLM_HOME", str(tmp_path / "elsewhere"))
    assert Home.locate().adapters == tmp_path / "elsewhere/adapters"
    monkeypatch.delenv("LOCALLLM_HOME")
    assert Home.locate().root.name == "localllm"
