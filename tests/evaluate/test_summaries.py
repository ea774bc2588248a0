"""What a summary gets, counted by hand and against rouge-score."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from localllm.evaluate.rouge import Rouge
from localllm.evaluate.summaries import copied_share, mean, nearest, score


def test_counted_by_hand() -> None:
    source = "The old bridge is closed. It will be repaired before winter, said the mayor."
    found = score("The old bridge will be repaired", ["The bridge will be repaired", "It is closed now"], source)
    assert found.rouge.rouge1 == pytest.approx(2 * 5 / 11)
    assert found.rouge.rouge2 == pytest.approx(2 * 3 / 9)
    assert found.length == pytest.approx((6 / 5 + 6 / 4) / 2)
    # Pairs: of "the old", "old bridge", "bridge will", "will be", "be repaired" all but the third.
    assert found.copied == pytest.approx((1.0, 4 / 5, 2 / 4, 0.0))
    # The first six words: the old bridge is closed it.
    assert found.lead is not None
    assert found.lead.rouge1 == pytest.approx(max(2 * 2 / 11, 2 * 3 / 10))


def test_each_value_is_that_of_its_nearest_reference() -> None:
    found = nearest("a b c d", ["d c b a", "a b x"])
    assert (found.rouge1, found.rougeL) == pytest.approx((1.0, 4 / 7))


def test_copies_of_nothing() -> None:
    assert copied_share(["a"], ["a"], 2) == 0.0
    empty = score("…", ["one two"], "one two three")
    assert (empty.rouge.rouge1, empty.length, empty.copied) == (0.0, 0.0, None)
    assert empty.lead == Rouge(0.0, 0.0, 0.0)


def test_means_leave_out_what_has_no_value() -> None:
    both = [score("a b", ["a b"], "a b c"), score("c d", ["a b"])]
    found = mean(both)
    assert (found.rouge1, found.length) == (0.5, 1.0)
    assert found.copied == (1.0, 1.0, 0.0, 0.0)
    assert found.lead == Rouge(1.0, 1.0, 1.0)
    assert mean(both[1:]).copied is None


def test_real_texts_get_what_rouge_score_gives_them(shared: Path) -> None:
    """Sums over 392 texts, as rouge-score 0.1.2 (RougeScorer.score_multi, no stemmer) gives them, plain and with each
    squared and times its number: it is an sdist only, which the lock does not take."""
    plain, weighted, compared = np.zeros(3), np.zeros(3), 0
    for line in (shared / "summarization/scitldr/dev.jsonl").read_text().splitlines()[:200]:
        row = json.loads(line)
        for text in (row["title"], row["source"][0]):
            if not all(part.isascii() for part in (text, *row["target"])):
                continue  # it drops letters outside ASCII
            found = nearest(text, row["target"])
            values = np.array([found.rouge1, found.rouge2, found.rougeL])
            compared += 1
            plain, weighted = plain + values, weighted + compared * values**2
    assert compared == 392
    np.testing.assert_allclose(plain, [119.63703801359135, 55.31410949169655, 100.38681280722987], rtol=1e-12)
    np.testing.assert_allclose(weighted, [9338.28751157769, 3558.9237619366368, 7003.535149693024], rtol=1e-12)
