"""`localllm help` as a person uses it."""

from __future__ import annotations

import json

import pytest

from localllm.cli.main import main
from localllm.handbook.entries import KINDS, entries
from tests.cli.helpers import fails, run


def test_without_a_question_all_topics_are_listed_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{kind}:\n" in printed for kind in KINDS)
    assert all(f"  {entry.id} " in printed and entry.title in printed for entry in entries())


def test_a_topic_is_printed_alone_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in (["top-p"], ["Top-p"], ["top", "p"]):
        assert main(["help", *asked]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("Top-p (top-p, option)\n`--top-p P` keeps only the likeliest tokens")
        assert "see also: top-k, min-p" in printed
        assert printed.count("see also:") == 1


def test_a_question_prints_the_entry_that_answers_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "how", "do", "I", "merge", "an", "adapter", "into", "a", "model?"]) == 0
    assert "(merge, how-to)" in capsys.readouterr().out.splitlines()[0]


def test_json_and_a_number_of_entries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "-n", "5", "--json", "training is slow"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["question"] == "training is slow"
    assert len(found["entries"]) == 5
    assert {"id", "kind", "title", "text", "see", "certainty"} == set(found["entries"][0])
    assert main(["help", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(KINDS)


def test_what_is_not_in_the_handbook_is_said() -> None:
    fails(run("help", "Who painted the Mona Lisa?"), 1, "The handbook has nothing on", "localllm help")
    fails(run("help", "-n", "0", "rank"), 2, "-n must be 1 or more")
