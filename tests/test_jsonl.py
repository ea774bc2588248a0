"""JSON Lines in and out."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from localllm import jsonl
from localllm.errors import DataError, StorageError


def test_rows_come_with_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \n[2]\n')
    assert list(jsonl.read(path)) == [(1, {"a": 1}), (4, [2])]


@pytest.mark.parametrize("content, match", [(b'{"a": 1}\n{"a": \n', "line 2: not valid"), (b"\xff\n", "line 1: byte")])
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=match):
        list(jsonl.read(path))


@pytest.mark.parametrize("rest", [b"", b'{"half": ', b"x" * 200_000])
def test_appending_drops_a_line_that_was_never_finished(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "deep/a.jsonl"
    with jsonl.Appender(path) as out:
        out.append({"n": 1})
    with path.open("ab") as file:
        file.write(rest)
    with jsonl.Appender(path) as out:
        out.append({"n": "zwei ✓"})
    assert list(jsonl.read(path)) == [(1, {"n": 1}), (2, {"n": "zwei ✓"})]


def test_a_full_disk_keeps_the_rows_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    out = jsonl.Appender(path)
    out.append({"n": 1})

    class Full:
        """The real file, with room for five more bytes."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 5

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written: int = self.file.write(data[: self.room])
            self.room -= written
            return written

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    out._file = Full(out._file)  # type: ignore[assignment]
    with pytest.raises(StorageError, match="No space left on device"):
        out.append({"n": 2})
    out.close()
    assert path.read_bytes() == b'{"n": 1}\n'


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write"):
        jsonl.Appender(tmp_path / "file/out.jsonl")
    with pytest.raises(StorageError, match="Cannot write"):
        jsonl.Appender(tmp_path)
