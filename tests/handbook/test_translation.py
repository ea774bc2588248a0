"""IBM Model 1 on a toy handbook, and likeness by hand."""

from __future__ import annotations

from math import isclose, log

from localllm.handbook.translation import learn, likeness, shipped, words

PAIRS = [
    ("where do spaniels sleep", "Dogs rest in a kennel."),
    ("bed for my spaniel", "Dogs rest in a kennel."),
    ("spaniel food", "Dogs eat meat."),
    ("goldfish food", "Fish eat flakes."),
    ("where do goldfish live", "Fish swim in a tank."),
]


def test_a_word_asked_is_learned_for_the_words_that_answer_it() -> None:
    table = learn(PAIRS)
    dogs, fish = table["spaniel"]["dog"], table["spaniel"].get("fish", 0.0)
    assert dogs > 1 > fish
    assert table["goldfish"]["fish"] > 1
    assert "" not in {said for found in table.values() for said in found}


def test_each_question_has_as_much_weight_as_it_has_words() -> None:
    """The expected counts of the first round are 1 / n for each of n words said, the empty one among them."""
    table = learn([("spaniel", "dog")])
    assert table.keys() == {"spaniel"}
    assert 0 < table["spaniel"]["dog"] < 1


def test_likeness_is_the_sum_of_the_logarithms_of_mean_ratios() -> None:
    table = {"a": {"x": 6.0, "y": 3.0}, "b": {"z": 5.0}}
    assert isclose(likeness(["a", "b", "c"], ["x", "y", "w"], table), log(1 + 9 / 3))
    assert likeness(["a"], [], table) == 0


def test_the_shipped_table_knows_other_words_for_what_the_handbook_says() -> None:
    said = words("Everything runs on your own machine: no prompt, document or model is sent anywhere.")
    other = words("`--top-p P` keeps only the likeliest tokens whose probabilities sum to P.")
    asked = words("does my conversation get uploaded to the cloud")
    assert likeness(asked, said, shipped()) > likeness(asked, other, shipped()) + 1
