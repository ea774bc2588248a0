"""Parts of a document are the document: no character lost, none twice, none over the budget."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from localllm.data.documents import decode_document, find_documents, read_document, split_text, unwrap
from localllm.errors import DataError


def words(text: str) -> int:
    """A stand-in for a tokenizer: four characters to a token, as in English."""
    return (len(text) + 3) // 4


def check(text: str, budget: int) -> None:
    chunks = split_text(text, budget, words)
    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.start for chunk in chunks] == [0, *(chunk.end for chunk in chunks[:-1])]
    assert chunks[-1].end == len(text)
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert chunk.tokens == words(chunk.text) <= budget


@pytest.mark.parametrize("budget", [8, 50, 400, 100_000])
@pytest.mark.parametrize("name", ["the-verdict.txt", "alice-pg11.txt"])
def test_real_books_are_covered(shared: Path, name: str, budget: int) -> None:
    check((shared / "documents" / name).read_text("utf-8"), budget)


@pytest.mark.parametrize("seed", range(40))
def test_random_text_is_covered(seed: int) -> None:
    rng = random.Random(seed)
    pieces = [
        "a",
        "word",
        "Sentence. ",
        "End! ",
        "\n",
        "\n\n",
        " ",
        "\t",
        "日本。",
        "x" * 300,
        "\r\n\r\n",
        "Why? ",
        "🙂",
    ]
    check("".join(rng.choice(pieces) for _ in range(rng.randint(1, 400))) or "a", rng.choice([8, 20, 60]))


def test_one_line_without_a_space_is_cut_all_the_same() -> None:
    check("x" * 100_000, 100)


def test_cuts_fall_between_paragraphs_where_they_can() -> None:
    paragraphs = [f"Paragraph {i}. " + "Some more words here. " * 5 for i in range(20)]
    text = "\n\n".join(paragraphs)
    for chunk in split_text(text, 100, words)[1:]:
        assert chunk.text.startswith("Paragraph")


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = "This is one sentence of some length. " * 50
    chunks = split_text(text, 40, words)
    assert all(chunk.text.rstrip().endswith(".") for chunk in chunks)


def test_wrapped_prose_is_unwrapped_and_nothing_else() -> None:
    wrapped = (
        "# Title\r\nThe first line of a paragraph that was wrapped\r\nat some column, as old\n"
        "texts are.\r\n\r\n- one\n- two\n"
    )
    whole = (
        "# Title\nThe first line of a paragraph that was wrapped at some column, as old\ntexts are.\n\n- one\n- two\n"
    )
    assert unwrap(wrapped) == whole


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
