"""Which measure is chosen, why, and what it gives."""

from __future__ import annotations

import pytest

from localllm.evaluate.answers import SHORT_WORDS, choose, label, scores
from localllm.evaluate.exact import Answered

LONG = " ".join(["word"] * (SHORT_WORDS + 1))


@pytest.mark.parametrize(
    "expected, kind, why",
    [
        (["spam", "ham", "Spam.", "ham"], "labels", "2 different answers of at most 1 word in 4 rows"),
        (["spam", "ham", "eggs"], "exact", "at most 1 word"),  # no label occurs twice
        (["very good indeed it was so", "bad"] * 5, "exact", "at most 6 words"),  # too long for labels
        ([" ".join(["word"] * SHORT_WORDS)], "exact", "at most 20 words"),
        (["short"] * 9 + [LONG], "exact", "at most 1 word"),  # one of ten may be long
        (["short"] * 8 + [LONG] * 2, "rouge", "21 words or more"),
    ],
)
def test_the_measure_and_why(expected: list[str], kind: str, why: str) -> None:
    measure = choose(expected)
    assert measure.kind == kind
    assert why in measure.why


def test_what_each_measure_gives() -> None:
    answered = [Answered(1, "Spam", "spam. "), Answered(2, "ham", "spam"), Answered(3, "ham", " ham\n")]
    assert scores(choose(["spam", "ham"] * 4), answered) == {"label accuracy": [1.0, 0.0, 1.0]}
    exact = scores(choose(["spam", "ham"]), answered)
    assert exact == {"exact match": [0.0, 0.0, 1.0], "ROUGE-L": [1.0, 0.0, 1.0]}
    assert next(iter(exact)) == "exact match"
    found = scores(choose([LONG]), [Answered(1, "the cat sat", "the cat lay")])
    assert list(found) == ["ROUGE-L", "ROUGE-1", "ROUGE-2"]
    assert found["ROUGE-2"] == [pytest.approx(0.5)]
    assert label(' "Very  Good." ') == label("very good")
    assert label("very good") != label("very bad")
