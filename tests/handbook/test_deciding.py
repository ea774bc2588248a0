"""Which sentences of an entry are taken to answer: on one made for it, and on the handbook's own questions."""

from __future__ import annotations

import json
from math import isclose
from pathlib import Path

import pytest

from localllm.handbook.deciding import MOST, Book, book
from localllm.handbook.entries import Entry, by_id

ROOT = Path(__file__).resolve().parents[2]
ZOO = Entry("zoo", "how-to", "Zebras", "Zebras are striped. They eat hay twice a day. Their stable is behind the gate.")
WRITTEN = {
    "zoo": [
        (0, "what is a zebra"),
        (0, "horse with stripes"),
        (1, "what do I feed it"),
        (1, "breakfast for the animal"),
        (2, "where does it sleep"),
        (2, "which house is its home"),
    ]
}


@pytest.fixture(scope="module")
def small() -> Book:
    return Book([ZOO], WRITTEN, {"supper": {"eat": 40.0}})


@pytest.mark.parametrize(
    "question, best",
    [("what are zebras", 0), ("do they get hay", 1), ("its breakfast", 1), ("in which house", 2), ("supper", 1)],
)
def test_words_of_the_sentence_of_its_questions_and_their_translations_count(
    small: Book, question: str, best: int
) -> None:
    chances = small.probabilities(question, ZOO)
    assert isclose(sum(chances), 1.0)
    later = chances[1:]
    assert (later.index(max(later)) + 1 if best else chances.index(max(chances))) == best
    assert best in small.deciding(question, ZOO)


def test_sentences_come_in_their_order_and_never_too_many(small: Book) -> None:
    for question in ("", "?", "giraffes", "where and what and when"):
        taken = small.deciding(question, ZOO)
        assert 1 <= len(taken) <= MOST
        assert taken == sorted(taken)


def test_evidence_by_hand(small: Book) -> None:
    found = small.evidence("do zebras eat hay", ZOO)
    assert [one.first for one in found] == [1.0, 0.0, 0.0]
    assert found[2].shared == found[2].alone == 0.0
    assert found[1].shared == found[1].alone > found[0].shared > 0
    assert isclose(sum(one.share for one in found), 1.0)


def test_blind_questions_are_answered_by_the_sentence_that_their_author_named() -> None:
    rows = [
        json.loads(line) for line in (ROOT / "tests/handbook/questions/blind.jsonl").read_text("utf-8").splitlines()
    ]
    asked = [row for row in rows if row["entries"]]
    held = 0
    for row in asked:
        entry = by_id()[row["entries"][0]]
        taken = [entry.readable[number] for number in {0, *book().deciding(row["question"], entry)}]
        held += row["deciding"].replace("`", "") in taken
    assert held >= 0.9 * len(asked)
