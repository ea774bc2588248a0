"""Rows of other data among those that are taught, against forgetting (rehearsal: Robins 1995)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from localllm.errors import UsageError

DEFAULT_SHARE = 0.1
T = TypeVar("T")


@dataclass(frozen=True)
class Rehearsal:
    """What to mix in."""

    path: Path
    share: float
    """Of all rows that are then trained on."""


def parse(text: str) -> Rehearsal:
    """FILE or FILE:SHARE; a path that is there is taken as it is. Raises UsageError for a share that is none."""
    name, colon, share = text.rpartition(":")
    if not colon or Path(text).exists():
        return Rehearsal(Path(text), DEFAULT_SHARE)
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not 0 < number < 1:
        raise UsageError(f"{share!r} in --rehearse {text} is not a share between 0 and 1.", "Write FILE:0.1.")
    return Rehearsal(Path(name), number)


def chosen(rows: Sequence[T], share: float, taught: int, seed: int) -> list[T]:
    """So many of the rows that they are that share of all, or all where there are fewer; the seed decides which."""
    wanted = max(1, round(share * taught / (1 - share)))
    if wanted >= len(rows):
        return list(rows)
    picked = sorted(random.Random(f"rehearse/{seed}").sample(range(len(rows)), wanted))
    return [rows[i] for i in picked]
