"""Documents: what is found, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.data.documents import decode_document, find_documents, read_document
from localllm.errors import DataError


def test_folders_are_walked_in_order_and_each_file_comes_once(tmp_path: Path) -> None:
    for name in ("b/two.md", "a.txt", "b/skip.pdf", ".hidden/x.txt", "b/.x.txt", "B.TXT"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    found = list(find_documents([tmp_path, tmp_path / "a.txt", tmp_path / "none.txt"]))
    assert [p.relative_to(tmp_path).as_posix() for p in found] == ["B.TXT", "a.txt", "b/two.md", "none.txt"]


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("a.txt", b"caf\xe9", r"is not UTF-8 text \(byte 3\)"),
        ("a.txt", b"PK\x03\x04\x00\x00", "is a binary file"),
        ("a.txt", b"  \n\n", "holds no text"),
        ("a.pdf", b"%PDF", "is not a text document"),
    ],
)
def test_what_is_no_text_says_why(name: str, content: bytes, match: str) -> None:
    with pytest.raises(DataError, match=match):
        decode_document(Path(name), content)


def test_byte_order_marks_choose_the_encoding() -> None:
    assert decode_document(Path("a.txt"), b"\xef\xbb\xbfh\xc3\xa9") == "hé"
    assert decode_document(Path("a.txt"), "hé".encode("utf-16")) == "hé"


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_document(tmp_path / "none.txt")
    with pytest.raises(DataError, match="directory"):
        read_document(tmp_path)
