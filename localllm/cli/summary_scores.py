"""`localllm evaluate summaries`: what summaries got, as a table or as JSON lines."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from localllm.cli.output import Events, say

if TYPE_CHECKING:
    from localllm.tasks.summary_scores import SummaryScores

_MOST_LINES = 20
"""Documents that are listed one by one; --json has all."""


def show(results: Path, references: Path, *, json: bool) -> int:
    """Judge and draw. Raises DataError."""
    from localllm.tasks.summary_scores import score_summaries

    found = score_summaries(results, references)
    events = Events(json)
    for one in found.scored:
        events("item", document=one.document, **asdict(one.score))
    counts = {"failed": found.failed, "unmatched": found.unmatched, "unanswered": found.unanswered}
    events("done", documents=len(found.scored), **counts, mean=asdict(found.mean))
    if not json:
        _table(found)
        _narrate(found)
    return 0


def _table(found: SummaryScores) -> None:
    from localllm.sanitize import sanitize_line

    mean = found.mean
    print(f"{'':32}{'ROUGE-1':>9}{'ROUGE-2':>9}{'ROUGE-L':>9}{'length':>9}")
    if len(found.scored) <= _MOST_LINES:
        for one in found.scored:
            values, name = one.score.rouge, sanitize_line(one.document)[-31:]
            print(f"{name:32}{values.rouge1:9.3f}{values.rouge2:9.3f}{values.rougeL:9.3f}{one.score.length:9.2f}")
    print(f"{'mean':32}{mean.rouge1:9.3f}{mean.rouge2:9.3f}{mean.rougeL:9.3f}{mean.length:9.2f}")
    if mean.lead:
        name = "as many first words of the text"
        print(f"{name:32}{mean.lead.rouge1:9.3f}{mean.lead.rouge2:9.3f}{mean.lead.rougeL:9.3f}{mean.length:9.2f}")
    if mean.copied:
        runs = ", ".join(f"{share:.0%} of {n}" for n, share in enumerate(mean.copied, 1))
        print(f"Runs of words that are copied from the text: {runs}.")


def _narrate(found: SummaryScores) -> None:
    say(f"{len(found.scored)} summaries; ROUGE as F1 on unstemmed words, length in words by that of the reference.")
    if found.failed:
        say(f"localllm: warning: {found.failed} documents have an error instead of a summary and do not count.")
    if found.unmatched:
        say(f"localllm: warning: {found.unmatched} summaries have no reference and do not count.")
    if found.unanswered:
        say(f"{found.unanswered} references have no summary.")
