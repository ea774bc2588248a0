"""The words that numbers get, at both sides of each threshold."""

from __future__ import annotations

import math

import pytest

from localllm.evaluate.perplexity import Change, Loss, RowLoss
from localllm.evaluate.verdict import Scored, forgets, judge


def change(base: float, adapter: float, *more: float) -> Change:
    """Rows of 100 tokens: one with these losses; `more` gives further ones the loss with the adapter."""
    after = (adapter, *more)
    return Change(
        Loss(tuple(RowLoss(100 * base, 100) for _ in after)), Loss(tuple(RowLoss(100 * a, 100) for a in after))
    )


def test_better_and_nothing_forgotten() -> None:
    verdict = judge(
        change(1.52, 0.01), Scored("exact match", (0, 0), (1, 1)), {"general text": change(2.0, 2.09)}
    )  # fmt: skip
    assert (verdict.outcome, verdict.forgot) == ("better", ())
    assert verdict.words == (
        "Better: loss 1.520 → 0.010 (−99%), exact match 0% → 100%. Nothing forgotten: perplexity on general text +9%."
    )


def test_forgot_says_what_and_by_how_much() -> None:
    kept = {"general text": change(math.log(14.2), math.log(31.0)), "rows of other topics": change(1.0, 1.0)}
    verdict = judge(change(1.0, 0.5), None, kept)
    assert verdict.forgot == ("general text",)
    assert "Forgot: perplexity on general text 14.2 → 31.0 (+118%)." in verdict.words
    assert "Nothing" not in verdict.words
    both = judge(change(1.0, 1.0), None, {"general text": change(1.0, 2.0), "other rows": change(1.0, 2.0)})
    assert both.words == (
        "No effect: loss 1.000 → 1.000 (±0%). "
        "Forgot: perplexity on general text 2.718 → 7.389 (+172%), on other rows 2.718 → 7.389 (+172%)."
    )


@pytest.mark.parametrize(
    "after, outcome",
    [(0.98, "better"), (0.995, "no effect"), (1.0, "no effect"), (1.005, "no effect"), (1.02, "worse"),
     (math.nan, "worse"), (math.inf, "worse")],
)  # fmt: skip
def test_one_percent_of_the_loss_is_an_effect(after: float, outcome: str) -> None:
    verdict = judge(change(1.0, after), None, {})
    assert verdict.outcome == outcome
    assert verdict.words.startswith(outcome.capitalize())


def test_what_chance_may_have_made_is_no_effect() -> None:
    assert judge(change(1.0, 0.5, 1.3), None, {}).outcome == "no effect"  # one row better, one worse
    assert judge(change(1.0, 0.9, 0.88), None, {}).outcome == "better"
    assert not forgets(change(1.0, 0.5, 1.9))  # 22% more perplexity, but not in every row
    assert forgets(change(1.0, 1.2, 1.25))


def test_answers_count_beside_the_loss() -> None:
    same, half = change(1.0, 1.0), Scored("exact match", (0.0,) * 8, (1.0,) * 4 + (0.0,) * 4)
    assert half.standard_error == pytest.approx(0.189, abs=1e-3)
    assert judge(same, half, {}).outcome == "better"
    assert judge(change(1.0, 1.5), half, {}).outcome == "mixed"
    assert judge(same, Scored("exact match", half.adapter, half.base), {}).outcome == "worse"
    assert judge(same, Scored("exact match", (0.0,) * 8, (1.0,) + (0.0,) * 7), {}).outcome == "no effect"


@pytest.mark.parametrize("after, forgot", [(1.09, False), (1.10, True), (math.nan, True), (math.inf, True)])
def test_ten_percent_more_perplexity_is_forgetting(after: float, forgot: bool) -> None:
    assert forgets(change(1.0, 1.0 + math.log(after) if math.isfinite(after) else after)) is forgot


def test_no_bounds_are_said_in_words() -> None:
    verdict = judge(change(1.0, 900.0), None, {"general text": change(1.0, 900.0)})
    assert "beyond all bounds" in verdict.words
    assert verdict.forgot == ("general text",)


def test_a_base_that_knows_nothing_is_remarked_on() -> None:
    kept = {"general text": change(9.0, 8.9), "rows of other topics": change(7.0, 7.0)}
    remark = judge(change(1.0, 0.5), None, kept, 4096).remark
    assert "predicts general text worse than a guess among its 4096 tokens" in remark
    assert "other topics" not in remark
    assert not judge(change(1.0, 0.5), None, kept, 32000).remark
