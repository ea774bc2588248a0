"""The rows that a verification looks at, and at which of their positions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from localllm.errors import AdapterError
from localllm.types import Example

HELD_OUT = "heldout.jsonl"
MAX_POSITIONS = 256
MAX_PROBABILITIES = 1 << 24
"""Log-probabilities held for each of base and tuned, in each engine: 64 MiB."""


def choose_positions(
    rows: Sequence[Example], n_vocab: int, most: int = MAX_POSITIONS, longest: int | None = None
) -> list[Example]:
    """Sequences whose mask picks the tokens after which distributions are compared: spread evenly over the rows'
    supervised parts within their first `longest` tokens, at most `most` and few enough to fit MAX_PROBABILITIES."""
    limit = min(most, max(16, MAX_PROBABILITIES // n_vocab))
    rows = rows[:limit]
    longest = longest or max(64, 4 * MAX_PROBABILITIES // n_vocab)  # the engine holds logits for a whole sequence
    share, extra = divmod(limit, max(1, len(rows)))
    chosen = []
    for number, row in enumerate(rows):
        candidates = [i for i in range(min(len(row.tokens), longest) - 1) if row.mask[i + 1]]
        candidates = candidates or list(range(min(len(row.tokens), longest)))[-share:]
        want = min(len(candidates), share + (number < extra))
        if not want:  # a row of one token
            continue
        picked = {candidates[round(k)] for k in np.linspace(0, len(candidates) - 1, want)}
        end = max(picked) + 1
        chosen.append(Example(row.tokens[:end], tuple(i in picked for i in range(end)), row.line))
    return chosen


def count(sequences: Sequence[Example]) -> int:
    """Positions picked in all."""
    return sum(sum(sequence.mask) for sequence in sequences)


def write_held_out(path: Path, rows: Sequence[Example]) -> None:
    """One JSON object a line: tokens, mask (as 0 and 1) and the line in the dataset."""
    lines = [
        json.dumps({"line": r.line, "tokens": r.tokens, "mask": [int(m) for m in r.mask]}, separators=(",", ":"))
        for r in rows
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def read_held_out(path: Path) -> list[Example]:
    """Rows that `write_held_out` wrote. Raises AdapterError."""
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return [Example(tuple(r["tokens"]), tuple(map(bool, r["mask"])), r["line"]) for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path} cannot be read: {error}.") from error
