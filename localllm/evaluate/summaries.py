"""How good a summary is: ROUGE against references, its length, and how much of it is copied from the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from localllm.evaluate.rouge import Rouge, rouge, words

LONGEST_COPY = 4
"""Runs of up to so many words are looked for in the source."""


@dataclass(frozen=True)
class Score:
    """Of one summary."""

    rouge: Rouge
    """Against the reference that it is nearest to, for each of the three by itself."""
    length: float
    """Words of the summary by those of a reference, on average over the references."""
    copied: tuple[float, ...] | None
    """Share of its runs of 1, 2, 3 and 4 words that the source has too; None without a source or without words."""
    lead: Rouge | None
    """What the first words of the source get, as many as the summary has."""


@dataclass(frozen=True)
class Mean:
    """Averages over summaries; None where none of them has a value."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - its name everywhere
    length: float
    copied: tuple[float, ...] | None
    lead: Rouge | None


def score(summary: str, references: Sequence[str], source: str | None = None) -> Score:
    """Judge a summary by one or more references, none of them without words."""
    found = words(summary)
    lengths = [len(words(reference)) for reference in references]
    length = sum(len(found) / n for n in lengths) / len(lengths)
    if source is None:
        return Score(nearest(summary, references), length, None, None)
    text = words(source)
    copied = tuple(copied_share(found, text, n) for n in range(1, LONGEST_COPY + 1)) if found else None
    return Score(nearest(summary, references), length, copied, nearest(" ".join(text[: len(found)]), references))


def nearest(text: str, references: Sequence[str]) -> Rouge:
    """The highest of each value over the references."""
    found = [rouge(reference, text) for reference in references]
    return Rouge(max(r.rouge1 for r in found), max(r.rouge2 for r in found), max(r.rougeL for r in found))


def copied_share(summary: Sequence[str], source: Sequence[str], n: int) -> float:
    """Share of the runs of n words that the source has too; 0 where the summary has none so long."""
    ours, theirs = ([tuple(text[i : i + n]) for i in range(len(text) - n + 1)] for text in (summary, source))
    there = set(theirs)
    return sum(run in there for run in ours) / len(ours) if ours else 0.0


def mean(scores: Sequence[Score]) -> Mean:
    """Over summaries, of which there is at least one."""
    copied = [s.copied for s in scores if s.copied is not None]
    return Mean(
        *_rouge_mean([s.rouge for s in scores]),
        length=_average([s.length for s in scores]),
        copied=tuple(_average(shares) for shares in zip(*copied, strict=True)) if copied else None,
        lead=Rouge(*_rouge_mean(leads)) if (leads := [s.lead for s in scores if s.lead is not None]) else None,
    )


def _rouge_mean(found: Sequence[Rouge]) -> tuple[float, float, float]:
    return _average([r.rouge1 for r in found]), _average([r.rouge2 for r in found]), _average([r.rougeL for r in found])


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)
