"""From one text to one summary: what is asked, in which order, and what becomes of the answers."""

from __future__ import annotations

import pytest

from localllm.errors import EngineError
from localllm.tasks.summary_plan import Answer, Limits, Planner, Step, Strategy, Summary
from localllm.tasks.summary_prompts import Prompts, Wish
from localllm.types import Sampling

LIMITS = Limits(60, 60, 0, Sampling(max_tokens=20), Sampling(max_tokens=30))
TEXT = "\n\n".join(f"Paragraph {i} says a thing or two." for i in range(6))


def carry_out(
    text: str, strategy: Strategy, answers: list[str], wish: Wish | None = None
) -> tuple[Summary, list[Step]]:
    """A plan with these answers, one token a character, and the steps that it took."""
    plan = Planner(Prompts(wish or Wish()), strategy, LIMITS, len).plan(text)
    asked, waiting = list[Step](), iter(answers)
    try:
        steps = next(plan)
        while True:
            now = list(steps)
            asked += now
            steps = plan.send([Answer(next(waiting), "stop", 1, 1) for _ in now])
    except StopIteration as end:
        return end.value, asked


def test_a_text_that_fits_is_asked_about_once() -> None:
    summary, asked = carry_out("Short.", "auto", ["  A  summary.\n"])
    assert (summary.value, summary.strategy) == ("A summary.", "single")
    assert [step.prompt for step in asked] == ["Summarize the following text.\n\nShort."]


def test_refining_carries_the_summary_along() -> None:
    summary, asked = carry_out(TEXT, "refine", [f"S{i}" for i in range(6)])
    assert summary.strategy == "refine"
    assert summary.value == f"S{len(asked) - 1}"
    assert all(f"Summary so far: S{i}\n" in step.prompt for i, step in enumerate(asked[1:]))
    assert "".join(TEXT[part["start"] : part["end"]] for part in summary.parts) == TEXT


def test_only_the_last_step_is_told_of_form_and_schema() -> None:
    _, asked = carry_out(TEXT, "map-reduce", ["x"] * 20, Wish(style="bullets", focus="Who?", language="German"))
    assert ["bullet" in s.prompt or "a list of" in s.prompt for s in asked] == [False] * (len(asked) - 1) + [True]
    assert all("Who?" in step.prompt and "German" in step.prompt for step in asked)
    summary, asked = carry_out(TEXT, "map-reduce", ["x"] * 6 + ['{"a": 1}'], Wish(schema='{"type": "object"}'))
    assert summary.value == {"a": 1}
    assert [step.sampling.max_tokens for step in asked] == [20] * 6 + [30]


def test_json_that_cannot_be_kept_is_an_error() -> None:
    for answer in ('{"a": ', "NaN", "1e999"):
        with pytest.raises(EngineError, match="no JSON that can be read"):
            carry_out("Short.", "auto", [answer], Wish(schema="{}"))


def test_a_template_of_ones_own_is_filled_in_once() -> None:
    wish = Wish(template="About {focus}: {text} {unknown}", focus="{text}")
    _, asked = carry_out("Short.", "auto", ["x"], wish)
    assert asked[0].prompt == "About {text}: Short. {unknown}"


def test_what_a_model_does_not_write_is_said() -> None:
    summary, _ = carry_out(TEXT, "auto", ["<think>hm</think>", *["x"] * 20])
    assert summary.warnings == ("the model wrote nothing for 1 of 6 parts",)
    with pytest.raises(EngineError, match="wrote no summary"):
        carry_out("Short.", "auto", ["<think>I should"])
    with pytest.raises(EngineError, match="one prompt has room for 60"):
        carry_out(TEXT, "single", [])
