"""What an adapter changed, in words, from numbers alone.

A difference counts when it is large enough to matter and more than chance among the rows would make:

- loss on the rows: at least 1% of the base's, and twice its standard error;
- answers: at least one point of a hundred, and twice its standard error;
- forgetting: perplexity at least 10% higher, and twice the standard error of the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from localllm.evaluate.perplexity import Change

LOSS = 0.01
SCORE = 0.01
FORGOT = 0.10
ERRORS = 2.0

Outcome = Literal["better", "no effect", "worse", "mixed"]


@dataclass(frozen=True)
class Scored:
    """One measure of the answers: a value from 0 to 1 for each row, by the base and with the adapter."""

    name: str
    base: tuple[float, ...]
    adapter: tuple[float, ...]

    @property
    def before(self) -> float:
        return sum(self.base) / len(self.base)

    @property
    def after(self) -> float:
        return sum(self.adapter) / len(self.adapter)

    @property
    def standard_error(self) -> float:
        """Of after - before, paired by row; 0 for one row."""
        n, mean = len(self.base), self.after - self.before
        if n < 2:
            return 0.0
        spread = sum((a - b - mean) ** 2 for b, a in zip(self.base, self.adapter, strict=True))
        return math.sqrt(spread / (n - 1) / n)


@dataclass(frozen=True)
class Verdict:
    """`outcome` is about the rows, `forgot` about everything else; `words` says both, with the numbers."""

    outcome: Outcome
    forgot: tuple[str, ...]
    """The texts on which it forgot; empty for none."""
    words: str
    remark: str = ""
    """Why the numbers say less than they seem to."""

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"outcome": self.outcome, "forgot": list(self.forgot), "words": self.words, "remark": self.remark}


def judge(rows: Change, answers: Scored | None, kept: Mapping[str, Change], n_vocab: int | None = None) -> Verdict:
    """The verdict on an adapter: on its own rows and answers, and on what it should have left alone, by name.

    With the size of the vocabulary it is remarked on where the base knows nothing that could be forgotten.
    """
    signs = {_loss_sign(rows), _score_sign(answers) if answers else 0} - {0}
    outcome: Outcome = "no effect" if not signs else "mixed" if len(signs) > 1 else "better" if 1 in signs else "worse"
    forgot = tuple(name for name, change in kept.items() if forgets(change))
    parts = [_sentence(outcome, rows, answers)]
    if forgot:
        parts.append(f"Forgot: perplexity on {', on '.join(f'{name} {_perplexities(kept[name])}' for name in forgot)}.")
    if kept and not forgot:
        parts.append(f"Nothing forgotten: perplexity on {_listed(kept)}.")
    return Verdict(outcome, forgot, " ".join(parts), _remark(kept, n_vocab))


def forgets(change: Change) -> bool:
    """Whether the adapter predicts these rows clearly worse. A perplexity that is no number counts as forgotten."""
    return not change.perplexity_change < FORGOT and not change.difference < ERRORS * change.standard_error


def _remark(kept: Mapping[str, Change], n_vocab: int | None) -> str:
    unknown = [name for name, change in kept.items() if n_vocab is not None and change.base.perplexity >= n_vocab]
    if not unknown:
        return ""
    return (
        f"The base predicts {' and '.join(unknown)} worse than a guess among its {n_vocab} tokens would: "
        "there it has little to forget."
    )


def _loss_sign(change: Change) -> int:
    """1 where the loss fell, -1 where it rose, 0 where it cannot be told."""
    least = max(LOSS * change.base.mean, ERRORS * change.standard_error)
    return 0 if abs(change.difference) < least else 1 if change.difference < 0 else -1


def _score_sign(answers: Scored) -> int:
    difference = answers.after - answers.before
    if abs(difference) < max(SCORE, ERRORS * answers.standard_error):
        return 0
    return 1 if difference > 0 else -1


def _sentence(outcome: Outcome, rows: Change, answers: Scored | None) -> str:
    numbers = [f"loss {rows.base.mean:.3f} → {rows.adapter.mean:.3f} ({_percent(_relative(rows))})"]
    if answers:
        numbers.append(f"{answers.name} {answers.before:.0%} → {answers.after:.0%}")
    return f"{outcome.capitalize()}: {', '.join(numbers)}."


def _relative(change: Change) -> float:
    return change.difference / change.base.mean if change.base.mean else math.nan


def _perplexities(change: Change) -> str:
    before, after = change.base.perplexity, change.adapter.perplexity
    return f"{readable(before)} → {readable(after)} ({_percent(change.perplexity_change)})"


def readable(perplexity: float) -> str:
    """A perplexity with three or four digits that matter, and without powers of ten up to a million."""
    if 1000 <= perplexity < 1e6:
        return f"{perplexity:,.0f}"
    return f"{perplexity:.1f}" if 10 <= perplexity < 1000 else f"{perplexity:.4g}"


def _listed(kept: Mapping[str, Change]) -> str:
    parts: Sequence[str] = [f"{name} {_percent(change.perplexity_change)}" for name, change in kept.items()]
    return ", on ".join(parts)


def _percent(part: float) -> str:
    if not math.isfinite(part):
        return "beyond all bounds"
    return f"{part:+.0%}".replace("-", "−") if abs(part) >= 0.005 else "±0%"
