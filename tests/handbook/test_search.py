"""What the search finds and declines, on questions written by hand: `scripts/handbook_scores.py` prints more."""

from __future__ import annotations

import pytest

from localllm.handbook.certainty import FOUND
from localllm.handbook.entries import Entry, by_id, entries
from localllm.handbook.index import Index, answers, handbook, of_all
from localllm.handbook.spelling import distance, nearest
from localllm.handbook.terms import asked, indexed, language, stem
from scripts.handbook_scores import OTHERS, Asked, read, shares

VOICES = ("newcomer", "expert", "nonnative")


@pytest.fixture(scope="module")
def everything() -> dict[str, list[Asked]]:
    return {name: read(name) for name in (*VOICES, OTHERS, "heldout")}


def test_the_questions_are_enough_and_name_entries_that_exist(everything: dict[str, list[Asked]]) -> None:
    about = [row for rows in everything.values() for row in rows if row.entries]
    held = [row for row in everything["heldout"] if row.entries]
    assert len(about) >= 300
    assert len(held) >= len(about) * 0.3
    assert sum(not row.entries for rows in everything.values() for row in rows) >= 100
    assert {name for row in about for name in row.entries} <= set(by_id())
    asked_once = [row.question.lower() for rows in everything.values() for row in rows]
    assert len(set(asked_once)) == len(asked_once)


def test_questions_that_were_held_out_find_their_entry(everything: dict[str, list[Asked]]) -> None:
    held = [row for row in everything["heldout"] if row.entries]
    found = shares(held)
    assert found.first >= 0.80
    assert found.three >= 0.92
    assert found.declined <= 0.08


def test_all_questions_together_find_their_entry(everything: dict[str, list[Asked]]) -> None:
    found = shares([row for rows in everything.values() for row in rows if row.entries])
    assert found.first >= 0.86
    assert found.three >= 0.94
    assert found.declined <= 0.08


def test_questions_about_other_things_are_declined(everything: dict[str, list[Asked]]) -> None:
    assert shares([row for rows in everything.values() for row in rows if not row.entries]).declined >= 0.9
    assert shares([row for row in everything["heldout"] if not row.entries]).declined >= 0.88


def test_questions_written_from_titles_are_answered_and_others_declined() -> None:
    rows = read("development")
    assert {name for row in rows for name in row.entries} <= set(by_id())
    assert shares([row for row in rows if row.entries]).declined <= 0.08
    assert shares([row for row in rows if not row.entries]).declined >= 0.9


def test_a_message_of_the_program_finds_what_explains_it() -> None:
    said = [(piece, entry) for entry in entries() for piece in entry.says if len(piece.split()) > 4]
    found = [handbook().search(piece)[0].entry == entry for piece, entry in said]
    assert sum(found) >= 0.9 * len(said)


@pytest.mark.parametrize(
    "question, wanted",
    [
        ("temperature", "temperature"),
        ("--top-p", "top-p"),
        ("top_p", "top-p"),
        ("finetuning", "fine-tuning"),
        ("finetune", "finetune"),
        ("fine tuning", "fine-tuning"),
        ("quantisation", "quantization"),
        ("perplexty", "perplexity"),
        ("halucination", "hallucination"),
    ],
)
def test_spellings_and_compounds_find_the_same(question: str, wanted: str) -> None:
    hits = handbook().search(question)
    assert wanted in [hit.entry.id for hit in hits]
    assert answers(hits)


@pytest.mark.parametrize(
    "question", ["", "?!", "the of and", "zzzzqqqq", '"', "tea AND milk OR NOT (", "*", "ü 漢字", "x" * 5000]
)
def test_anything_may_be_asked(question: str) -> None:
    assert not answers(handbook().search(question))


def test_ordinary_words_say_little_and_words_of_other_topics_much() -> None:
    def sure(question: str) -> float:
        return handbook().search(question)[0].certainty

    plain = sure("how do I merge an adapter into a model")
    assert sure("my colleague urgently wishes to merge an adapter into a model") > FOUND
    assert sure("how do I merge an adapter into a bicycle") < plain
    assert sure("how do I merge a bicycle into a motorway") < FOUND


def test_a_word_of_another_topic_is_not_a_misspelt_one() -> None:
    words = language()
    assert stem("wine") in words.elsewhere
    assert stem("somebody") in words.ordinary
    assert not words.ordinary & words.elsewhere
    assert not (words.ordinary | words.elsewhere) & {stem(word) for word in words.topic}


def test_the_order_does_not_depend_on_chance() -> None:
    questions = ["how do I train", "memory", "what is an adapter", "it is slow"]
    again = of_all()
    for question in questions:
        assert handbook().search(question, 10) == again.search(question, 10)


def test_an_index_of_few_entries_finds_by_title_words_message_and_text() -> None:
    few = [
        Entry("a", "idea", "Zebras", "A striped animal of the plains.", words=("stripes",)),
        Entry("b", "error", "Broken gate", "Close it by hand.", says=("The gate is stuck.",)),
        Entry("c", "how-to", "Feeding", "Give hay twice a day."),
    ]
    index = Index(few)
    for question, wanted in (("zebra", "a"), ("stripe", "a"), ("gate stuck", "b"), ("hay", "c")):
        assert index.search(question)[0].entry.id == wanted
    assert index.search("hay")[0].certainty < index.search("feeding")[0].certainty <= 1.0


def test_words_are_compared_without_their_endings() -> None:
    assert {stem(word) for word in ("train", "trains", "trained", "training")} == {"train"}
    assert stem("stopped") == stem("stop")
    assert "maxtokens" in indexed("--max-tokens").split()
    assert asked("How do I fine-tune it?") == asked("how can I do training") == ["finetune"]


@pytest.mark.parametrize(
    "a, b, mistakes",
    [("same", "same", 0), ("form", "from", 1), ("adapter", "adaptor", 1), ("los", "loss", 1), ("a", "xyz", 3)],
)
def test_mistakes_are_counted(a: str, b: str, mistakes: int) -> None:
    assert distance(a, b, 2) == distance(b, a, 2) == mistakes


def test_the_nearest_word_is_the_one_that_was_meant() -> None:
    known = {"adapter": 9, "adopted": 1, "loss": 4, "alpha": 2, "token": 5}
    assert nearest("adaptr", known) == "adapter"
    assert nearest("alfa", known) == "alpha"
    assert nearest("los", known) == "loss"
    assert nearest("tokne", known) == "token"
    assert nearest("taken", known) is None
    assert nearest("cathedral", known) is None
    assert nearest("q4", known) is None
