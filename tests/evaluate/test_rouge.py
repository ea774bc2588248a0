"""ROUGE against the paper, against rouge-score, and against the plain definition."""

from __future__ import annotations

import random

import pytest

from localllm.evaluate.rouge import longest_common, rouge, words

# (expected, answer, ROUGE-1, ROUGE-2, ROUGE-L): printed by rouge-score 0.1.2, without a stemmer. The first two are the
# example of section 3.1 in Lin's paper, which gives 3/4 and 2/4 for ROUGE-L.
GOLDEN = [
    ("police killed the gunman", "police kill the gunman", 0.75, 0.3333333333333333, 0.75),
    ("police killed the gunman", "the gunman kill police", 0.75, 0.3333333333333333, 0.5),
    (
        "The council met on Monday and agreed to repair the old bridge before winter.",
        "On Monday the council agreed: the bridge will be repaired before winter, it said.",
        0.6428571428571429, 0.23076923076923078, 0.5,
    ),
    (
        "A cat, a cat; and 2 dogs!", "a cat and a dog and a cat",
        0.6666666666666666, 0.4615384615384615, 0.5333333333333333,
    ),
    (
        "state-of-the-art x_1 results (3.5%)", "State of the art results: 3.5 % on x_1",
        0.9473684210526316, 0.7058823529411765, 0.7368421052631577,
    ),
    ("", "anything", 0.0, 0.0, 0.0),
    ("one", "one", 1.0, 0.0, 1.0),
]  # fmt: skip


@pytest.mark.parametrize("expected, answer, one, two, longest", GOLDEN)
def test_the_numbers_are_those_of_rouge_score(
    expected: str, answer: str, one: float, two: float, longest: float
) -> None:
    found = rouge(expected, answer)
    assert (found.rouge1, found.rouge2, found.rougeL) == pytest.approx((one, two, longest), abs=1e-12)


def test_counted_by_hand() -> None:
    found = rouge("the cat sat on the mat", "the cat lay on a mat")
    assert found.rouge1 == pytest.approx(2 * 4 / 12)  # the, cat, on, mat
    assert found.rouge2 == pytest.approx(2 * 1 / 10)  # the cat
    assert found.rougeL == pytest.approx(2 * 4 / 12)  # the cat on mat
    assert rouge("a a a b", "a a c").rouge1 == pytest.approx(2 * 2 / 7)  # each as often as where it is rarer


def test_every_script_counts() -> None:
    assert words("Der Zug fährt um 12 Uhr") == ["der", "zug", "fährt", "um", "12", "uhr"]
    assert words("我喜欢Python吗") == ["我", "喜", "欢", "python", "吗"]
    assert rouge("Поезд идёт", "поезд идёт").rouge2 == 1.0
    assert rouge("caf\u00e9", "cafe\u0301").rouge1 == 1.0


def plain(a: list[str], b: list[str]) -> int:
    """The textbook table."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def test_the_longest_common_subsequence_is_that_of_the_table() -> None:
    draw = random.Random(0)
    for _ in range(300):
        a, b = (draw.choices("abcd", k=draw.randrange(0, 90)) for _ in range(2))
        assert longest_common(a, b) == plain(a, b)
