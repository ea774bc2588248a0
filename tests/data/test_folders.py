"""Dataset folders: which files are which rows, and folders that leave it open."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.data.dataset import has_valid, read_dataset, scan_dataset
from localllm.data.folders import find_splits
from localllm.errors import DataError

ROW = '{"text": "%s"}\n'


def folder(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ROW % Path(name).stem)
    return tmp_path


@pytest.mark.parametrize(
    "names, train, valid, test",
    [
        (["train.jsonl", "valid.jsonl", "test.jsonl", "dataset_info.json"], 1, 1, 1),
        (["train-00000-of-00002.json", "train-00001-of-00002.json", "validation-00000-of-00001.json"], 2, 1, 0),
        (["data/train/0000.json", "data/validation/0000.json", "script.py", ".cache/train.json"], 1, 1, 0),
        (["alpaca_train.csv", "alpaca_dev.csv"], 1, 1, 0),
        (["anything.jsonl", "README.md"], 1, 0, 0),
    ],
)
def test_files_are_found_by_name(tmp_path: Path, names: list[str], train: int, valid: int, test: int) -> None:
    splits = find_splits(folder(tmp_path, *names))
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (train, valid, test)
    assert has_valid(tmp_path) == bool(valid)


@pytest.mark.parametrize(
    "names, problem",
    [
        (["README.md", "load.py"], "holds no data files"),
        (["a.jsonl", "b.jsonl"], r"no file named train \(a\.jsonl, b\.jsonl\)"),
        (["en/train.jsonl", "de/train.jsonl"], "more than one set of train files"),
        (["train.jsonl", "train.csv"], "more than one set of train files"),
        (["train_a-00000-of-00001.json", "train_b-00000-of-00001.json"], "more than one set of train files"),
        (["train-00000-of-00003.json", "train-00002-of-00003.json"], "only 2 of the 3 files of train are there"),
        (["dataset_dict.json", "train/data-00000-of-00001.arrow"], "save_to_disk"),
    ],
)
def test_folders_that_are_not_clear_say_why(tmp_path: Path, names: list[str], problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        find_splits(folder(tmp_path, *names))
    assert caught.value.hint


def test_rows_of_several_files_are_counted_through(tmp_path: Path) -> None:
    folder(tmp_path, "train-0.jsonl", "train-1.jsonl")
    (tmp_path / "train-1.jsonl").write_text(ROW % "good" + '{"text": 1}\n')
    found = scan_dataset(tmp_path)
    assert [(row.line, row.text) for row in found.rows] == [(1, "train-0"), (2, "good")]
    assert found.unit == "row"
    assert (found.bad[0].line, found.bad[0].problem) == (
        3, 'train-1.jsonl, line 2: "text" must be text, found a number.',
    )  # fmt: skip
    with pytest.raises(DataError, match=r"row 3: train-1\.jsonl, line 2"):
        read_dataset(tmp_path)


def test_a_split_that_is_asked_for_must_be_there(tmp_path: Path) -> None:
    folder(tmp_path, "train.jsonl", "valid.jsonl")
    assert [row.text for row in read_dataset(tmp_path, "valid")] == ["valid"]
    with pytest.raises(DataError, match="no test files"):
        read_dataset(tmp_path, "test")


def test_a_name_of_the_hub_says_how_to_get_it() -> None:
    with pytest.raises(DataError, match=r"no such file or folder.*data check hf\.co/datasets/some/dataset"):
        read_dataset(Path("some/dataset"))
    with pytest.raises(DataError, match=r"no such file\. Check the path"):
        read_dataset(Path("some/dataset.jsonl"))
