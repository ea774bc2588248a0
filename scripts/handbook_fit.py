"""Fit the certainty of the handbook's search: writes localllm/handbook/topic.txt, prints coefficients for certainty.py.

    python scripts/handbook_fit.py

A logistic regression with an L2 penalty, over all questions but the blind ones: those in tests/handbook/questions,
those written for each sentence, and those about other things in handbook_others.txt. Everything that is reported and
chosen (penalty, threshold) is cross-validated: a question is judged by a fit that has not seen it, and what the fit
sees of it comes from an index and from odds of words without it. As entries hold words that people were known to ask
with, the questions of the tests are also looked up in thinned handbooks, in which phrases are missing at random.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localllm.handbook import topic  # noqa: E402
from localllm.handbook.asked import asked as written  # noqa: E402
from localllm.handbook.certainty import Evidence  # noqa: E402
from localllm.handbook.entries import Entry, entries  # noqa: E402
from localllm.handbook.index import Index  # noqa: E402
from scripts.handbook_scores import Asked, read  # noqa: E402

SETS = ("newcomer", "expert", "nonnative", "others", "development", "heldout")
WRITTEN, ELSEWHERE = "for a sentence", "elsewhere"
OTHERS = Path(__file__).with_name("handbook_others.txt")
THINNED = (0.0, 0.4, 0.7)
"""Shares of phrases left out of a handbook, the whole one first."""
PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FOLDS = 8
DECLINED = 0.97
"""Share of the tests' questions about other things to decline: what is asked is 0.9."""
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


def questions() -> list[Asked]:
    """All of them, those of the tests first; the voice is the set."""
    found = [replace(row, voice=name) for name in SETS for row in read(name)]
    found += [Asked(WRITTEN, question, (name,)) for name, pairs in written().items() for _, question in pairs]
    lines = [line for line in OTHERS.read_text("utf-8").splitlines() if not line.startswith("#")]
    return found + [Asked(ELSEWHERE, line, ()) for line in lines]


def fold_of(row: Asked) -> int:
    """The part of the questions that one belongs to."""
    return zlib.crc32(row.question.encode()) % FOLDS


def odds(asked: Sequence[Asked]) -> dict[str, float]:
    """Of the words in these questions."""
    return topic.log_odds((r.question for r in asked if r.entries), (r.question for r in asked if not r.entries))


def table(asked: Sequence[Asked]) -> Table:
    """What the search sees of all questions, each without those of its fold; those of the tests in all handbooks."""
    rows = []
    for fold in range(FOLDS):
        weights = odds([row for row in asked if fold_of(row) != fold])
        known = {name: [q for _, q in pairs if fold_of(Asked("", q, ())) != fold] for name, pairs in written().items()}
        for share in THINNED:
            index = Index([_thinned(entry, share) for entry in entries()], known, weights)
            rows += [
                (astuple(seen[0][2]), bool(row.entries), number, share)
                for number, row in enumerate(asked)
                if fold_of(row) == fold and (row.voice in SETS or not share) and (seen := index.seen(row.question, 1))
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


def judged(data: Table, asked: Sequence[Asked], penalty: float) -> np.ndarray:
    """The score of each row by a fit that has not seen its question, (rows,)."""
    scores = np.empty(len(data.x))
    for held in _folds(data, asked):
        coefficients, intercept = fit(data.x[~held], data.about[~held], penalty)
        scores[held] = data.x[held] @ coefficients + intercept
    return scores


def _folds(data: Table, asked: Sequence[Asked]) -> Iterator[np.ndarray]:
    folds = np.array([fold_of(row) for row in asked])
    for fold in range(FOLDS):
        yield folds[data.question] == fold


def log_loss(scores: np.ndarray, about: np.ndarray) -> float:
    """Nats a row, both classes weighing the same."""
    losses = np.logaddexp(0, np.where(about, -scores, scores))
    return float((losses[about].mean() + losses[~about].mean()) / 2)


def threshold(scores: np.ndarray, data: Table, where: np.ndarray) -> float:
    """The score below which the share `DECLINED` lies of the tests' questions about other things."""
    tested = np.isin(where[data.question], SETS) & (data.thinned == 0) & ~data.about
    return float(np.quantile(scores[tested], DECLINED))


def report(scores: np.ndarray, least: float, data: Table, where: np.ndarray) -> None:
    """A line for each set and handbook."""
    for share in THINNED:
        for about in (True, False):
            for name in (*SETS, WRITTEN, ELSEWHERE):
                rows = (data.thinned == share) & (data.about == about) & (where[data.question] == name)
                if rows.any():
                    kind = "about the program" if about else "other things"
                    print(f"without {share:.0%}  {name:14} {kind:18} {rows.sum():>4} "
                          f"declined {(scores[rows] < least).mean():.1%}")  # fmt: skip


def main() -> None:
    asked = questions()
    where = np.array([row.voice for row in asked])
    data = table(asked)
    tried = {penalty: judged(data, asked, penalty) for penalty in PENALTIES}
    penalty = min(tried, key=lambda p: log_loss(tried[p], data.about))
    least = threshold(tried[penalty], data, where)
    print(f"penalty {penalty:g}, log loss {log_loss(tried[penalty], data.about):.3f}, threshold {least:.3f}")
    report(tried[penalty], least, data, where)
    coefficients, intercept = fit(data.x, data.about, penalty)
    for name, value, spread in zip(NAMES, coefficients, data.x.std(0), strict=True):
        print(f"    {name}={value:.3f},  # {value * spread:+.2f} for one standard deviation")
    print(f"INTERCEPT = {intercept - least:.3f}")
    head = "# Made by scripts/handbook_fit.py: see topic.py\n"
    topic.FILE.write_text(head + "".join(f"{name} {value:.2f}\n" for name, value in odds(asked).items()), "utf-8")


if __name__ == "__main__":
    main()
