"""Naive Bayes by hand, and the shipped odds."""

from __future__ import annotations

from math import isclose, log

from localllm.handbook.topic import evidence, features, log_odds, weights


def test_features_are_stems_and_pairs_of_neighbours_once() -> None:
    assert features("Models, models: train") == ["model", "train", "model_model", "model_train"]


def test_odds_are_counted_by_question() -> None:
    odds = log_odds(["train a model", "my model model"], ["my train is late"])
    assert "late" not in odds  # once in all
    assert isclose(odds["model"], log(2.5 / 0.5) + log(2 / 3))
    assert isclose(odds["train"], log(1.5 / 1.5) + log(2 / 3))


def test_words_and_pairs_are_added_up_apart() -> None:
    odds = {"model": 2.0, "late": -3.0, "model_train": 0.5}
    assert evidence("a late model", odds) == (-1.0, 0.0)
    assert evidence("model train", odds) == (2.0, 0.5)


def test_the_shipped_odds_tell_topics_apart() -> None:
    for ours, other in (("gguf", "recip"), ("lora_adapter", "a_poem"), ("lora", "landlord")):
        assert weights().get(ours, 0.0) > 0.5 > -0.5 > weights().get(other, 0.0)
