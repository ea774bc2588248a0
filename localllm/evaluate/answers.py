"""How good answers are: which measure suits those that are expected, and what it gives.

One of a few labels: label accuracy. Short: exact match. Long, where many wordings are right: ROUGE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from localllm.evaluate.exact import Answered
from localllm.evaluate.rouge import rouge

SHORT_WORDS = 20
"""Nine of ten expected answers have at most so many words: one wording is right."""
LABEL_WORDS = 5
"""A label has at most so many, and occurs twice on average."""

Kind = Literal["labels", "exact", "rouge"]
NAMES: dict[Kind, str] = {"labels": "label accuracy", "exact": "exact match", "rouge": "ROUGE-L"}


@dataclass(frozen=True)
class Measure:
    """What answers are judged by."""

    kind: Kind
    why: str

    @property
    def name(self) -> str:
        return NAMES[self.kind]


def choose(expected: Sequence[str]) -> Measure:
    """The measure for these expected answers, of which there is at least one."""
    lengths = sorted(len(answer.split()) for answer in expected)
    most = lengths[max(0, -(-len(lengths) * 9 // 10) - 1)]
    different = len({label(answer) for answer in expected})
    if lengths[-1] <= LABEL_WORDS and 2 <= 2 * different <= len(expected):
        words = f"of at most {lengths[-1]} word{'s' * (lengths[-1] != 1)}"
        return Measure("labels", f"{different} different answer{'s' * (different > 1)} {words} in {len(expected)} rows")
    if most <= SHORT_WORDS:
        return Measure("exact", f"nine of ten answers have at most {most} word{'s' * (most != 1)}")
    return Measure("rouge", f"answers are long: the longest tenth has {most} words or more")


def scores(measure: Measure, answered: Sequence[Answered]) -> dict[str, list[float]]:
    """A value between 0 and 1 for each row, under each name; the first is the one that a verdict goes by."""
    if measure.kind == "labels":
        return {measure.name: [float(label(a.answer) == label(a.expected)) for a in answered]}
    found = [asdict(rouge(a.expected, a.answer)) for a in answered]
    if measure.kind == "exact":  # where nothing is exact, ROUGE still tells near from far
        return {measure.name: [float(a.exact) for a in answered], "ROUGE-L": [values["rougeL"] for values in found]}
    names = {"ROUGE-L": "rougeL", "ROUGE-1": "rouge1", "ROUGE-2": "rouge2"}
    return {name: [values[key] for values in found] for name, key in names.items()}


def label(text: str) -> str:
    """A label without what does not tell it from another: case, spaces around it, quotes and a full stop."""
    return " ".join(text.split()).strip(" .!\"'").casefold()
