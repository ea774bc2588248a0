"""A dataset folder, as the Hugging Face hub lays them out: which files are the training, validation and test rows.

Only data files are looked at; a dataset's own Python is never run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from localllm.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_SPLITS = {"train": "train", "training": "train", "validation": "valid", "valid": "valid", "val": "valid",
           "dev": "valid", "test": "test", "testing": "test", "eval": "test"}  # fmt: skip
_NAME = re.compile(r"(?:^|[-_.])(" + "|".join(_SPLITS) + r")(?:[-_.]|$)")
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
        if not path.exists() and _is_hub_name(path):
            raise DataError(
                "there is no such file, and datasets of the Hugging Face hub are not fetched yet.",
                f"Run hf download {path} --repo-type dataset --local-dir FOLDER, then give FOLDER.",
                path=path,
            )
        return Splits((path,))
    files = [file for file in sorted(path.rglob("*")) if _is_data(file, path)]
    groups: dict[str, list[Path]] = {"train": [], "valid": [], "test": []}
    for file in files:
        if split := _split_of(file, path):
            groups[split].append(file)
    if len(files) == 1 and not groups["train"]:
        return Splits((files[0],))
    if not groups["train"]:
        raise _unclear(path, files)
    for split, members in groups.items():
        _one_configuration(path, split, members)
    return Splits(*(tuple(groups[name]) for name in ("train", "valid", "test")))


def _is_hub_name(path: Path) -> bool:
    return _HUB_NAME.fullmatch(str(path)) is not None and path.suffix.lower() not in (*SUFFIXES, ".txt", ".md")


def _is_data(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.suffix.lower() in SUFFIXES and not hidden and file.stem not in _NOT_ROWS and file.is_file()


def _split_of(file: Path, root: Path) -> str:
    """By the file's name, else by its folder's: data/train-00000-of-00002.parquet, train/0000.parquet."""
    for part in (file.stem, *reversed(file.relative_to(root).parent.parts)):
        if found := _NAME.search(part.lower()):
            return _SPLITS[found[1]]
    return ""


def _one_configuration(path: Path, split: str, files: list[Path]) -> None:
    """Several folders or kinds of file with one split are several datasets: which of them is for a person to say."""
    if len({(file.parent, file.suffix) for file in files}) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in files[:4])
        raise DataError(f"the folder holds more than one set of {split} files ({names}).", "Name one.", path=path)


def _unclear(path: Path, files: list[Path]) -> DataError:
    if (path / "dataset_dict.json").exists() or list(path.glob("*.arrow")) or list(path.glob("*/*.arrow")):
        message = "the folder was written by save_to_disk (Arrow files)."
        return DataError(message, "Write it with to_json or to_parquet instead.", path=path)
    if not files:
        return DataError("the folder holds no data files.", _GIVE_ONE, path=path)
    names = ", ".join(file.name for file in files[:4])
    return DataError(f"the folder has no file named train ({names}).", _GIVE_ONE, path=path)
