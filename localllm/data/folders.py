"""A dataset folder, as the Hugging Face hub lays them out: which files are the training, validation and test rows.

Only data files are looked at; a dataset's own Python is never run. What counts are the files' names, so that a folder
that is still on the hub is read as one on the disk is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from localllm.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
SPLITS = ("train", "valid", "test")
_SPLITS = {"train": "train", "training": "train", "validation": "valid", "valid": "valid", "val": "valid",
           "dev": "valid", "test": "test", "testing": "test", "eval": "test"}  # fmt: skip
_NAME = re.compile(r"(?:^|[-_.])(" + "|".join(_SPLITS) + r")(?:[-_.]|$)")
_SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?")
"""One of the parts in which the hub stores a large table."""
_NOT_ROWS = {"dataset_info", "dataset_infos", "dataset_dict", "state", "config", "metadata", "schema"}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_GIVE_ONE = "Give one data file, or a folder with train and validation files (JSONL, JSON, CSV or Parquet)."


@dataclass(frozen=True)
class Splits:
    """Files of a dataset, each split's in the order of their names."""

    train: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()


def find_splits(path: Path) -> Splits:
    """The files of a dataset; a file is its own training rows. Raises DataError when a folder's are not clear."""
    if not path.is_dir():
        if not path.exists() and _HUB_NAME.fullmatch(str(path)) and not path.suffix:
            hint = (
                f"If it is one of the hub: `localllm data check hf.co/datasets/{path}` fetches it and names its folder."
            )
            raise DataError("there is no such file or folder.", hint, path=path)
        return Splits((path,))
    names = [file.relative_to(path).as_posix() for file in sorted(path.rglob("*")) if file.is_file()]
    found = split_names(names, path)
    return Splits(*(tuple(path / name for name in found[split]) for split in SPLITS))


def split_names(names: Sequence[str], path: Path, wanted: Sequence[str] = SPLITS) -> dict[str, list[str]]:
    """The same for names within a folder: {"train": [...], ...} with the splits that are wanted.

    Raises DataError when they leave it open, or where a part of a table is missing.
    """
    files = sorted(
        (PurePosixPath(name) for name in names if _is_data(PurePosixPath(name))), key=lambda file: file.parts
    )
    groups: dict[str, list[PurePosixPath]] = {split: [] for split in SPLITS}
    for file in files:
        if split := _split_of(file):
            groups[split].append(file)
    if len(files) == 1 and not groups["train"]:
        groups = {split: files if split == "train" else [] for split in SPLITS}
    if not groups["train"]:
        raise _unclear(path, names, files)
    for split in wanted:
        _one_set(path, split, groups[split])
    return {split: [str(file) for file in groups[split]] for split in wanted}


def _is_data(file: PurePath) -> bool:
    hidden = any(part.startswith(".") for part in file.parts)
    return file.suffix.lower() in SUFFIXES and not hidden and file.stem not in _NOT_ROWS


def _split_of(file: PurePath) -> str:
    """By the file's name, else by its folder's: data/train-00000-of-00002.parquet, train/0000.parquet."""
    for part in (file.stem, *reversed(file.parent.parts)):
        if found := _NAME.search(part.lower()):
            return _SPLITS[found[1]]
    return ""


def _one_set(path: Path, split: str, files: list[PurePosixPath]) -> None:
    """Several folders, kinds of file or tables with one split are several datasets: which is for a person to say."""
    tables: dict[tuple[str, int], set[int]] = defaultdict(set)
    for file in files:
        if part := _SHARD.fullmatch(file.stem):
            tables[part["stem"], int(part["count"])].add(int(part["number"]))
    if len({(file.parent, file.suffix) for file in files}) > 1 or len(tables) > 1:
        names = ", ".join(map(str, files[:4]))
        raise DataError(f"the folder holds more than one set of {split} files ({names}).", "Name one.", path=path)
    for (stem, count), numbers in tables.items():
        if len(numbers) < count:
            message = f"only {len(numbers)} of the {count} files of {stem} are there."
            raise DataError(message, "Fetch the others, or name the files one by one.", path=path)


def _unclear(path: Path, names: Sequence[str], files: list[PurePosixPath]) -> DataError:
    if any(name == "dataset_dict.json" or name.endswith(".arrow") for name in names):
        message = "the folder was written by save_to_disk (Arrow files)."
        return DataError(message, "Write it with to_json or to_parquet instead.", path=path)
    if not files:
        return DataError("the folder holds no data files.", _GIVE_ONE, path=path)
    shown = ", ".join(file.name for file in files[:4])
    return DataError(f"the folder has no file named train ({shown}).", _GIVE_ONE, path=path)
