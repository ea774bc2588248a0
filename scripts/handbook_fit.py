"""Fit the certainty of the handbook's search: prints the coefficients for localllm/handbook/certainty.py.

    python scripts/handbook_fit.py

A logistic regression with an L2 penalty, over all questions but the blind ones. Everything that is reported and chosen
(penalty, threshold) is cross-validated: a question is judged by a fit that has not seen it. As entries hold words that
people were known to ask with, every question is also looked up in thinned handbooks, in which phrases are missing at
random: so the fit meets questions that nobody foresaw.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localllm.handbook.certainty import Evidence  # noqa: E402
from localllm.handbook.entries import Entry, entries  # noqa: E402
from localllm.handbook.index import Index  # noqa: E402
from scripts.handbook_scores import Asked, read  # noqa: E402

SETS = ("newcomer", "expert", "nonnative", "others", "development", "heldout")
THINNED = (0.0, 0.4, 0.7)
"""Shares of phrases left out of a handbook, the whole one first."""
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 10
DECLINED = 0.93
"""Share of the questions about other things to decline: what is asked is 0.9."""
NAMES = [field.name for field in fields(Evidence)]


@dataclass(frozen=True)
class Table:
    """One row for each question and handbook."""

    x: np.ndarray
    """Evidence for the best entry, (rows, features)."""
    about: np.ndarray
    """Whether the question is about the program, (rows,)."""
    question: np.ndarray
    """The question's number, (rows,): all its rows lie in one fold."""
    thinned: np.ndarray
    """The share of phrases that the handbook lacks, (rows,)."""


def table(asked: Sequence[Asked]) -> Table:
    """What the search sees of all questions, in all handbooks."""
    rows = [
        (astuple(seen[0][2]), bool(row.entries), number, share)
        for share in THINNED
        for index in [Index([_thinned(entry, share) for entry in entries()])]
        for number, row in enumerate(asked)
        if (seen := index.seen(row.question, 1))
    ]
    x, about, question, thinned = zip(*rows, strict=True)
    return Table(np.array(x, float), np.array(about), np.array(question), np.array(thinned))


def _thinned(entry: Entry, share: float) -> Entry:
    chance = random.Random(f"{entry.id} {share}")
    return replace(entry, words=tuple(word for word in entry.words if chance.random() >= share))


def fit(x: np.ndarray, about: np.ndarray, penalty: float, steps: int = 30) -> tuple[np.ndarray, float]:
    """Coefficients and intercept, by Newton's method on standardized features; both classes weigh the same."""
    middle, scale = x.mean(0), x.std(0) + 1e-9
    z = np.hstack([(x - middle) / scale, np.ones((len(x), 1))])
    weight = np.where(about, 0.5 / about.mean(), 0.5 / (1 - about.mean()))
    ridge = penalty * np.diag([1.0] * x.shape[1] + [0.0])
    w = np.zeros(z.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-z @ w))
        slope = z.T @ (weight * (p - about)) + ridge @ w
        curve = (z * (weight * p * (1 - p))[:, None]).T @ z + ridge
        w -= np.linalg.solve(curve, slope)
    return w[:-1] / scale, float(w[-1] - (w[:-1] * middle / scale).sum())


def judged(data: Table, penalty: float) -> np.ndarray:
    """The score of each row by a fit that has not seen its question, (rows,)."""
    scores = np.empty(len(data.x))
    for held in _folds(data):
        coefficients, intercept = fit(data.x[~held], data.about[~held], penalty)
        scores[held] = data.x[held] @ coefficients + intercept
    return scores


def _folds(data: Table) -> Iterator[np.ndarray]:
    order = np.random.default_rng(0).permutation(data.question.max() + 1)
    for fold in range(FOLDS):
        yield order[data.question] % FOLDS == fold


def log_loss(scores: np.ndarray, about: np.ndarray) -> float:
    """Nats a row, both classes weighing the same."""
    losses = np.logaddexp(0, np.where(about, -scores, scores))
    return float((losses[about].mean() + losses[~about].mean()) / 2)


def main() -> None:
    by_set = {name: read(name) for name in SETS}
    asked = [row for rows in by_set.values() for row in rows]
    where = np.array([name for name, rows in by_set.items() for _ in rows])
    data = table(asked)
    tried = {penalty: judged(data, penalty) for penalty in PENALTIES}
    penalty = min(tried, key=lambda p: log_loss(tried[p], data.about))
    scores, others = tried[penalty], sum(not row.entries for row in asked)
    above = np.sort(scores[(data.thinned == 0) & ~data.about])[::-1]
    threshold = float(above[round((1 - DECLINED) * others)])  # questions without any hit are not among the scores
    print(f"penalty {penalty:g}, log loss {log_loss(scores, data.about):.3f}, threshold {threshold:.3f}")
    for share in THINNED:
        for about in (True, False):
            for name in SETS:
                rows = (data.thinned == share) & (data.about == about) & (where[data.question] == name)
                if rows.any():
                    kind = "about the program" if about else "other things"
                    print(f"without {share:.0%}  {name:12} {kind:18} {rows.sum():>4} "
                          f"declined {(scores[rows] < threshold).mean():.1%}")  # fmt: skip
    coefficients, intercept = fit(data.x, data.about, penalty)
    for name, value, spread in zip(NAMES, coefficients, data.x.std(0), strict=True):
        print(f"    {name}={value:.3f},  # {value * spread:+.2f} for one standard deviation")
    print(f"INTERCEPT = {intercept - threshold:.3f}")


if __name__ == "__main__":
    main()
