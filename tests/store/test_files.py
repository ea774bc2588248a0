"""Files appear whole under their names, and a failure is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.errors import StorageError
from localllm.store.files import write_atomically


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "a.json", b"1")
    write_atomically(tmp_path / "new" / "a.json", b"2")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.json"]
    assert (tmp_path / "new" / "a.json").read_bytes() == b"2"


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="Cannot write"):
        write_atomically(tmp_path / "file" / "a.json", b"1")
    with pytest.raises(StorageError, match="Cannot write"):
        write_atomically(tmp_path / ("x" * 300), b"1")
