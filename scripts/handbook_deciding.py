"""Fit what picks the deciding sentences: writes localllm/handbook/translation.txt, prints coefficients for deciding.py.

    python scripts/handbook_deciding.py

A conditional logit with an L2 penalty, on the questions written for each sentence. Everything that is reported is
cross-validated: a question is judged by coefficients, a translation table and an index of questions without it.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localllm.handbook import translation  # noqa: E402
from localllm.handbook.asked import asked as written  # noqa: E402
from localllm.handbook.deciding import ENOUGH, FIRST, MOST, Book, Evidence  # noqa: E402
from localllm.handbook.entries import by_id, entries  # noqa: E402

FOLDS = 8
PENALTY = 3.0
NAMES = [field.name for field in fields(Evidence)]


@dataclass(frozen=True)
class Table:
    """One row for each question; sentences that an entry does not have are `absent`."""

    x: np.ndarray
    """Evidence, (rows, sentences, features)."""
    absent: np.ndarray
    """0, or minus infinity for a sentence that is not there, (rows, sentences)."""
    right: np.ndarray
    """The sentence that answers, (rows,)."""
    fold: np.ndarray
    """(rows,)."""


def fold_of(question: str) -> int:
    """The part of the questions that one belongs to."""
    return zlib.crc32(question.encode()) % FOLDS


def pairs(fold: int | None) -> dict[str, list[tuple[int, str]]]:
    """The questions without those of a fold."""
    return {name: [(at, q) for at, q in found if fold_of(q) != fold] for name, found in written().items()}


def translated(known: dict[str, list[tuple[int, str]]]) -> translation.Table:
    """The table learned from these questions."""
    return translation.learn((q, by_id()[name].sentences[at]) for name, found in known.items() for at, q in found)


def table() -> Table:
    """What is seen of each question without the questions of its fold."""
    rows = []
    for fold in range(FOLDS):
        known = pairs(fold)
        book = Book(entries(), dict(known), translated(known))
        for name, found in written().items():
            for at, question in found:
                if fold_of(question) == fold:
                    rows.append(([astuple(one) for one in book.evidence(question, by_id()[name])], at, fold))
    most = max(len(evidence) for evidence, _, _ in rows)
    x, absent = np.zeros((len(rows), most, len(NAMES))), np.full((len(rows), most), -np.inf)
    for i, (evidence, _, _) in enumerate(rows):
        x[i, : len(evidence)], absent[i, : len(evidence)] = evidence, 0.0
    return Table(x, absent, np.array([at for _, at, _ in rows]), np.array([fold for _, _, fold in rows]))


def shares(x: np.ndarray, absent: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Probabilities of the sentences, (rows, sentences)."""
    scores = x @ coefficients + absent
    found = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(found / found.sum(1, keepdims=True))


def fit(data: Table, rows: np.ndarray, steps: int = 30) -> np.ndarray:
    """Coefficients by Newton's method, on features of unit spread."""
    there = data.absent[rows] == 0
    scale = data.x[rows][there].std(0) + 1e-9
    x, absent, right = data.x[rows] / scale, data.absent[rows], data.right[rows]
    w = np.zeros(x.shape[2])
    for _ in range(steps):
        p = shares(x, absent, w)
        mean = np.einsum("rs,rsf->rf", p, x)
        slope = (mean - x[np.arange(len(x)), right]).sum(0) + PENALTY * w
        curve = np.einsum("rs,rsf,rsg->fg", p, x, x) - mean.T @ mean + PENALTY * np.eye(len(w))
        w -= np.linalg.solve(curve, slope)
    return w / scale


def judged(data: Table) -> np.ndarray:
    """The probabilities for each question by a fit that has not seen it."""
    found = np.zeros(data.absent.shape)
    for fold in range(FOLDS):
        held = data.fold == fold
        w = fit(data, ~held)
        w[NAMES.index("first")] += FIRST
        found[held] = shares(data.x[held], data.absent[held], w)
    return found


def taken(chances: Sequence[float], enough: float, most: int) -> list[int]:
    """As `Book.deciding` takes them."""
    found: list[int] = []
    for number in sorted(range(len(chances)), key=lambda n: -chances[n])[:most]:
        found.append(number)
        if sum(chances[n] for n in found) >= enough:
            break
    return found


def report(data: Table) -> None:
    """How often the right sentence is among those taken, and how many they are, where it is the first and elsewhere."""
    chances = judged(data)
    first = data.right == 0
    print(f"most probable: first {(chances.argmax(1) == 0)[first].mean():.1%}, "
          f"later {(chances.argmax(1) == data.right)[~first].mean():.1%}")  # fmt: skip
    for enough, most in ((ENOUGH, MOST), (0.7, 3), (0.8, 2), (0.9, 3), (1.0, 2), (1.0, 3)):
        sets = [taken(row, enough, most) for row in chances]
        held = np.array([right in found for right, found in zip(data.right, sets, strict=True)])
        sizes = np.array([len(found) for found in sets])
        print(f"{enough} of at most {most}: first {held[first].mean():.1%} with {sizes[first].mean():.2f} sentences, "
              f"later {held[~first].mean():.1%} with {sizes[~first].mean():.2f}")  # fmt: skip


def main() -> None:
    data = table()
    report(data)
    for name, value in zip(NAMES, fit(data, np.ones(len(data.x), bool)), strict=True):
        print(f"    {name}={value:.3f},")
    head = "# Made by scripts/handbook_deciding.py: see translation.py\n"
    lines = [
        f"{word} {said} {ratio:.0f}\n"
        for word, found in sorted(translated(pairs(None)).items())
        for said, ratio in sorted(found.items())
        if ratio >= 1  # what is rarer than usual says nothing
    ]
    translation.FILE.write_text(head + "".join(lines), "utf-8")


if __name__ == "__main__":
    main()
