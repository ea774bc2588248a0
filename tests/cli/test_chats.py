"""`localllm chats`: list, search, export and import, on a store of the test's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localllm.cli.main import main
from localllm.paths import Home
from localllm.tasks.conversations import open_store


@pytest.fixture
def chats(home: Home) -> int:
    store = open_store(home)
    chat = store.create().id
    question = store.turns.add(chat, None, "user", "Who built the lighthouse\x1b[2J?")
    store.turns.add(chat, question, "assistant", "Anna Lind built it in 1874.")
    store.close()
    return chat


def test_conversations_are_listed_and_searched_without_control_characters(
    chats: int, capsys: pytest.CaptureFixture[str]
):
    assert main(["chats", "list"]) == 0
    out = capsys.readouterr().out
    assert "Who built the lighthouse␛[2J?" in out
    assert main(["chats", "search", "anna", "1874"]) == 0
    out = capsys.readouterr().out
    assert "Anna Lind built it" in out
    assert "\x1b" not in out
    assert main(["chats", "search", "lighthouse", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == [chats, chats]  # its title and its first message


def test_an_export_is_imported_in_another_home(
    chats: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main(["chats", "export", str(tmp_path / "all.json")]) == 0
    monkeypatch.setenv("LOCALLLM_HOME", str(tmp_path / "other"))
    assert main(["chats", "import", str(tmp_path / "all.json")]) == 0
    assert main(["chats", "import", str(tmp_path / "all.json")]) == 0
    err = capsys.readouterr().err
    assert "1 conversations and 2 messages added." in err
    assert "0 conversations and 0 messages added." in err
    assert main(["chats", "export", str(tmp_path / "one.md"), "--chat", "1"]) == 0
    assert "Anna Lind built it in 1874." in (tmp_path / "one.md").read_text()
    assert main(["chats", "export", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["chats"][0]["turns"][0]["role"] == "user"


@pytest.mark.parametrize(
    "arguments", [["import", "absent.json"], ["export", "x.md"], ["export", "x.json", "--chat", "nix"]]
)
def test_failures_are_one_sentence(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["chats", *arguments]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))
