"""The parts of the app that need no screen: thoughts, keys, parameters, files in messages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from localllm.errors import DataError, UsageError
from localllm.tasks.attaching import attachments, complete, completions, dropped, mention_of, mentions, with_attachments
from localllm.tasks.thinking import may_think, split_thought
from localllm.tui.keymap import ACTIONS, KEYS, load_keys, spoken
from localllm.tui.links import code_blocks, links_in
from localllm.tui.parameters import PARAMETERS, PRESETS, preset_of, read, read_schema, shown
from localllm.types import Sampling


@pytest.mark.parametrize(
    "text,expected",
    [
        ("plain", (None, "plain")),
        ("<think>a b</think>\n\nsaid", ("a b", "said")),
        ("a b</think>said", ("a b", "said")),
        ("<think>on its way", ("on its way", "")),
        ("say <think>x</think> literally", (None, "say <think>x</think> literally")),
    ],
)
def test_a_thought_is_told_from_what_was_said(text: str, expected: tuple[str | None, str]):
    assert split_thought(text) == expected


def test_a_reply_may_become_a_thought_only_while_it_begins_like_one():
    assert [may_think(t) for t in ("", "  <", "<thi", "<thing", "no")] == [True, True, True, False, False]


def test_every_action_has_a_name_and_keys_that_do_not_clash(tmp_path: Path):
    assert load_keys(tmp_path) == {}
    (tmp_path / "keys.toml").write_text('"chat.new" = "f10"\n')
    assert load_keys(tmp_path) == {"chat.new": "f10"}
    assert all(action.name for action in ACTIONS.values())
    assert spoken("ctrl+n,f9") == "Ctrl+N, F9"
    assert set(KEYS) == set(ACTIONS)


@pytest.mark.parametrize(
    "content,said",
    [
        ('"chat.nev" = "f9"', "Did you mean chat.new"),
        ('"chat.new" = 5', "must be text"),
        ('"chat.new" = "f1"', "gives f1 to both app.help and chat.new"),
        ("not toml", "cannot be read"),
    ],
)
def test_a_bad_keys_file_is_explained(tmp_path: Path, content: str, said: str):
    (tmp_path / "keys.toml").write_text(content)
    with pytest.raises(UsageError) as raised:
        load_keys(tmp_path)
    assert said in str(raised.value)


def test_parameters_are_shown_and_read_back():
    sampling = Sampling(temperature=0.35, top_k=40, max_tokens=7, seed=3)
    assert read(Sampling(), {p.name: shown(sampling, p) for p in PARAMETERS}) == sampling
    assert read(sampling, {"max_tokens": " "}).max_tokens is None
    assert read(sampling, {"temperature": "0,5"}).temperature == 0.5
    for name, (_, values) in PRESETS.items():
        assert preset_of(Sampling(**values)) == name  # type: ignore[arg-type]
    assert preset_of(Sampling(temperature=0.123)) is None


@pytest.mark.parametrize(
    "typed,said",
    [
        ({"temperature": "hot"}, "Temperature must be a number"),
        ({"top_p": "2"}, "Top p must be from 0 to 1"),
        ({"seed": "1.5"}, "whole number"),
    ],
)
def test_a_wrong_value_is_named(typed: dict[str, str], said: str):
    with pytest.raises(UsageError, match=said):
        read(Sampling(), typed)


def test_a_schema_is_a_json_object():
    assert read_schema(" ") is None
    assert read_schema('{"type": "object"}') == '{"type": "object"}'
    for wrong in ("[]", "{", "x"):
        with pytest.raises(UsageError):
            read_schema(wrong)


def test_files_in_a_message_are_those_that_exist(tmp_path: Path):
    plain, spaced = tmp_path / "a.md", tmp_path / "b c.txt"
    plain.write_text("one ``` two")
    spaced.write_text("three")
    text = f"see @{plain}, and {mention_of(spaced)}; mail me@example.org or @nobody"
    assert [path for _, path in mentions(text)] == [plain, spaced]
    sent = with_attachments(text, attachments(text))
    assert sent.startswith(text)
    assert "a.md:\n````\none ``` two\n````" in sent
    assert "b c.txt:\n```\nthree\n```" in sent
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4 broken")
    with pytest.raises(DataError):
        attachments(f"@{tmp_path / 'bad.pdf'}")


def test_paths_are_completed_and_dropped_files_recognized(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.md").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    assert completions(f"{tmp_path}/f") == [f"{tmp_path}/folder/", f"{tmp_path}/file.md"]
    assert completions(f"{tmp_path}/nix/") == []
    assert dropped(f"'{tmp_path}/file.md'") == f"@{tmp_path}/file.md "
    assert dropped(f"file://{tmp_path}/file.md") == f"@{tmp_path}/file.md "
    assert dropped("some text") is None
    assert dropped(f"{tmp_path}/absent.md") is None
    assert dropped("two\nlines") is None


@pytest.mark.parametrize(
    "name", ["two words.txt", "it's.txt", 'a "b" c.txt', "报告 概要.txt", "日本語.md", "e\x1b[31m\x07.txt"]
)
@pytest.mark.parametrize("typed", ["{}", '"{}', "'{}"])
def test_any_name_is_completed_to_what_a_message_names(tmp_path: Path, name: str, typed: str):
    (tmp_path / name).write_text("x")
    done = complete("see @" + typed.format(f"{tmp_path}/{name[0]}"))
    assert done is not None
    start, mention, found = done
    assert start == len("see ")
    assert found == [f"{tmp_path}/{name}"]
    assert [path for _, path in mentions(f"see {mention}please")] == [tmp_path / name]


def test_a_mention_in_quotes_stays_open_until_it_is_whole(tmp_path: Path):
    (tmp_path / "my folder").mkdir()
    for name in ("part 1.txt", "part 2.txt"):
        (tmp_path / "my folder" / name).write_text("x")
    assert complete(f"@{tmp_path}/m") == (0, f'@"{tmp_path}/my folder/', [f"{tmp_path}/my folder/"])
    _, mention, found = complete(f'@"{tmp_path}/my folder/') or (0, "", [])
    assert (mention, len(found)) == (f'@"{tmp_path}/my folder/part ', 2)
    assert complete(f"{mention}2") == (0, f'@"{tmp_path}/my folder/part 2.txt" ', [f"{tmp_path}/my folder/part 2.txt"])
    assert complete(f"@{tmp_path}/my\\ fol") == complete(f"@{tmp_path}/my")
    assert complete("mail me@example") is None
    assert complete(f'@"{tmp_path}/my folder/part 2.txt" and') is None
    assert complete("@nix/n") == (0, "@nix/n", [])


def test_names_that_no_message_can_hold_are_not_offered(tmp_path: Path):
    for name in ("a\nb", "a\x85b", """a'"b""", "ab"):
        (tmp_path / name).write_text("x")
    (Path(os.fsdecode(bytes(tmp_path) + b"/a\xff"))).write_text("x")
    assert completions(f"{tmp_path}/") == [f"{tmp_path}/ab"]


def test_addresses_and_code_are_taken_out_of_a_reply():
    text = "[a](http://one.example/x) and https://two.example/y.\n\n```py\nhttp://three.example\n```\n[j](javascript:x)"
    assert links_in(text)[:2] == ["http://one.example/x", "https://two.example/y"]
    assert not [address for address in links_in(text) if address.startswith("javascript")]
    assert code_blocks(text) == [("py", "http://three.example")]
