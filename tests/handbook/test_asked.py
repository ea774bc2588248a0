"""The questions written for each sentence, and the index of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.handbook import asked as module
from localllm.handbook.asked import asked
from localllm.handbook.entries import FOLDER, by_id
from localllm.handbook.matching import FADING, Questions


def test_every_sentence_of_every_entry_has_questions() -> None:
    assert set(asked()) == set(by_id())
    for name, pairs in asked().items():
        assert {number for number, _ in pairs} == set(range(len(by_id()[name].sentences))), name


def test_no_question_stands_twice_for_one_entry() -> None:
    for name, pairs in asked().items():
        questions = [question.lower() for _, question in pairs]
        assert len(set(questions)) == len(questions), name


def test_each_file_goes_with_one_of_entries() -> None:
    assert {path.stem for path in module.FOLDER.glob("*.txt")} == {path.stem for path in FOLDER.glob("*.md")}


def test_a_malformed_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1-a.txt").write_text("## entry\n0: what?\n")
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match="0: what"):
        asked.__wrapped__()


def test_an_entry_has_the_points_of_its_likest_questions() -> None:
    index = Questions([(7, "feed the zebra"), (7, "zebra food"), (3, "paint a fence"), (3, "zebra crossing and fence")])
    found = index.points(["zebra"])
    assert list(found) == [7, 3]
    one = Questions([(7, "feed the zebra"), (0, "x"), (3, "paint a fence"), (3, "zebra crossing and fence")])
    assert found[7] > one.points(["zebra"])[7] * FADING > 0
    assert index.points([]) == {}
    assert index.points(["giraffe"]) == {}
