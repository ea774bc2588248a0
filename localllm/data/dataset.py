"""Training rows: a file or a dataset folder in the usual formats; every bad row is found, with its line and why.

`data.sources` says which files, `data.formats` which rows are understood.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from localllm.data.folders import find_splits
from localllm.data.formats import read_row
from localllm.data.sources import EXPECTED, RawRow, read_source
from localllm.data.turns import BadRowError
from localllm.errors import DataError
from localllm.types import Conversation

SplitName = Literal["train", "valid", "test"]
_SPLIT_NAMES = {"train": "training", "valid": "validation", "test": "test"}
_SHOWN = 8


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    problem: str


@dataclass(frozen=True)
class Dataset:
    """Everything that was found in a dataset."""

    path: Path
    kind: str
    """Of file: JSON Lines, CSV and so on."""
    unit: Literal["line", "row"]
    """What the numbers of rows count: lines of the file, or rows where there are none or several files."""
    rows: tuple[Conversation, ...]
    bad: tuple[BadRow, ...]
    formats: tuple[tuple[str, int], ...]
    """Formats of the rows that were read, each with how many are in it, the commonest first."""

    @property
    def differing(self) -> tuple[int, ...]:
        """Lines of the rows that are not in the commonest format."""
        return tuple(row.line for row in self.rows if row.format != self.formats[0][0])


def scan_dataset(path: Path, split: SplitName = "train") -> Dataset:
    """Every row of a file, or of a folder's files of that split, good and bad.

    Raises DataError for a file that cannot be read as a whole, and where there is no row at all or no such split.
    """
    files = getattr(find_splits(path), split) if path.is_dir() else find_splits(path).train
    if not files:
        raise DataError(f"the folder has no {_SPLIT_NAMES[split]} files.", "Name the file.", path=path)
    sources = [(file, read_source(file)) for file in files]
    whole = len(files) == 1
    rows: list[Conversation] = []
    bad: list[BadRow] = []
    number = 0
    for file, source in sources:
        for raw in source.rows:
            number += 1
            where = "" if whole else f"{file.name}, {source.unit} {raw.line}: "
            _read(raw, raw.line if whole else number, where, rows, bad)
    if not rows and not bad:
        raise DataError("there are no rows.", EXPECTED, path=path)
    unit: Literal["line", "row"] = sources[0][1].unit if whole else "row"
    counted = Counter(row.format for row in rows).most_common()
    return Dataset(path, sources[0][1].kind, unit, tuple(rows), tuple(bad), tuple(counted))


def read_dataset(path: Path, split: SplitName = "train") -> list[Conversation]:
    """Every row of a dataset. Raises DataError when one is bad: the first, how many there are, and their lines."""
    return usable(scan_dataset(path, split))


def has_valid(path: Path) -> bool:
    """Whether this is a folder that brings validation rows of its own."""
    return path.is_dir() and bool(find_splits(path).valid)


def usable(dataset: Dataset) -> list[Conversation]:
    """The rows. Raises DataError when one is bad."""
    if not dataset.bad:
        return list(dataset.rows)
    first, unit, count = dataset.bad[0], dataset.unit, len(dataset.bad)
    where = at(unit, [bad.line for bad in dataset.bad])
    others = f" {count} rows are bad ({where}); `localllm data check` says why." if count > 1 else ""
    if unit == "row":
        raise DataError(f"row {first.line}: {first.problem}{others}", EXPECTED, path=dataset.path)
    raise DataError(f"{first.problem}{others}", EXPECTED, path=dataset.path, line=first.line)


def split(rows: Sequence[Conversation], seed: int, share: float = 0.1) -> tuple[list[Conversation], list[Conversation]]:
    """(training rows, validation rows): a tenth, at least one, chosen by the seed; both keep the file's order.

    Raises DataError when there are fewer than two rows.
    """
    if len(rows) < 2:
        raise DataError("one row cannot be both trained on and held out.", "Add rows, or give --valid FILE.")
    n = max(1, round(len(rows) * share))
    held = set(random.Random(seed).sample(range(len(rows)), n))
    train = [row for i, row in enumerate(rows) if i not in held]
    return train, [rows[i] for i in sorted(held)]


def common_format(rows: Sequence[Conversation]) -> str:
    """The format that most of at least one rows were written in."""
    return Counter(row.format for row in rows).most_common(1)[0][0]


def at(unit: str, lines: Sequence[int]) -> str:
    """Where rows are: "line 3", "lines 3, 5"."""
    return f"{unit}{'s' * (len(lines) > 1)} {listed(lines)}"


def listed(lines: Sequence[int], most: int = _SHOWN) -> str:
    """Line numbers as they are said: the first few, and a sign that there are more."""
    return ", ".join(map(str, lines[:most])) + (" …" if len(lines) > most else "")


def _read(raw: RawRow, line: int, where: str, rows: list[Conversation], bad: list[BadRow]) -> None:
    if raw.problem:
        bad.append(BadRow(line, where + raw.problem))
        return
    try:
        rows += read_row(raw.value, line)
    except BadRowError as error:
        bad.append(BadRow(line, where + str(error)))
    except RecursionError:
        bad.append(BadRow(line, f"{where}it is nested too deeply."))
