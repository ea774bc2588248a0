"""Documents: what is found, what is read of it, and what is said of the rest."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from localllm.data import documents
from localllm.data.documents import Document, Found, Skipped, Unreadable, find, read_documents
from localllm.data.readers import kinds
from tests.data.readers import samples

HTML = b"<html><title>T</title><h1>H</h1><p>Some <b>bold</b> text.</p><table><tr><td>1</td></tr></table></html>"
SRT = b"1\n00:00:01,000 --> 00:00:02,000\nHello.\n\n2\n00:00:03,000 --> 00:00:04,000\nBye.\n"
JSONL = b'{"id": "a", "text": "First."}\n{"id": "b", "text": "Second."}\n'
CSV = b"id,body\na,First.\nb,\"Second,\nlonger.\"\n"  # fmt: skip


def read(*paths: Path, **options: object) -> list[Document | Unreadable | Skipped]:
    return list(read_documents(paths, **options))  # type: ignore[arg-type]


def one(path: Path, content: bytes) -> Document | Unreadable | Skipped:
    path.write_bytes(content)
    (item,) = read(path)
    return item


def test_folders_are_walked_in_order_and_each_file_comes_once(tmp_path: Path) -> None:
    for name in ("b/two.md", "a.txt", "b/skip.exe", ".hidden/x.txt", "b/.x.txt", "B.TXT"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    items = list(find([tmp_path, tmp_path / "a.txt", tmp_path / "b" / ".." / "a.txt", tmp_path / "none.txt"]))
    found = [item.path.relative_to(tmp_path).as_posix() for item in items if isinstance(item, Found) and item.path]
    assert found == ["B.TXT", "a.txt", "b/two.md", "none.txt"]
    skipped = {Path(item.source).name: item.why for item in items if isinstance(item, Skipped)}
    assert skipped == {".hidden": "hidden", ".x.txt": "hidden", "skip.exe": "kind"}


def test_patterns_are_filled_in(tmp_path: Path) -> None:
    for name in ("b.md", "a.md", "deep/c.md", "d.txt", "odd[1].md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    assert [Path(i.source).name for i in find([tmp_path / "[ab].md"])] == ["a.md", "b.md"]
    assert [Path(i.source).name for i in find([tmp_path / "**/*.md"])] == ["a.md", "b.md", "c.md", "odd[1].md"]
    assert [Path(i.source).name for i in find([tmp_path / "odd[1].md"])] == ["odd[1].md"], "a name before a pattern"
    (item,) = read(tmp_path / "*.pdf")
    assert isinstance(item, Unreadable)


def test_standard_input_is_a_document() -> None:
    (item,) = read(Path("-"), stdin=io.BytesIO("Größe".encode()))
    assert isinstance(item, Document)
    assert (item.source, item.path, item.text) == ("-", None, "Größe")


def test_a_text_is_the_file_and_the_hash_that_of_its_bytes(tmp_path: Path) -> None:
    item = one(tmp_path / "a.md", b"\xef\xbb\xbf# Title\r\n\r\nText.\n")
    assert isinstance(item, Document)
    assert item.text == "# Title\r\n\r\nText.\n"
    assert item.sha256 == __import__("hashlib").sha256((tmp_path / "a.md").read_bytes()).hexdigest()
    assert (item.format, item.encoding, item.warnings) == ("Markdown", "utf-8", ())


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"  \n\n", "holds no text"),
        ("a.txt", b"\x89PNG\r\n\x1a\n\0\0", "is a PNG image, not text"),
        ("a.txt", samples.zipped({"x": "y"}), "is a ZIP archive, not text"),
        ("a.docx", samples.zipped({"x": "y"})[:40], "is a damaged Word file"),
        ("a.docx", samples.zipped({"xl/workbook.xml": "y"}), "is an Excel file"),
        ("a.doc", b"\xd0\xcf\x11\xe0" + bytes(99), "old Office file"),
        ("a.txt", b"{\\rtf1 text}", "is an RTF file"),
        ("a.txt", bytes(range(256)), "is a binary file"),
        ("a.csv", b",,\n1,2,3\n", "names no columns"),
    ],
)
def test_what_cannot_be_read_says_why_and_what_to_do(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    item = one(tmp_path / name, content)
    assert isinstance(item, Unreadable)
    assert match in item.message
    assert str(item).startswith(f"{tmp_path / name}: {item.message} ")
    assert item.hint
    assert str(tmp_path) not in item.message


def test_a_missing_file_a_device_and_an_odd_name_are_errors(tmp_path: Path) -> None:
    items = read(tmp_path / "none.txt", Path("/dev/zero"), Path("a\0b"))
    assert all(isinstance(item, Unreadable) for item in items)
    assert ["No such file" in str(items[0]), "is a device" in str(items[1])] == [True, True]


def test_a_folder_that_may_not_be_read_is_an_error_among_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b.txt").write_text("text")
    real = os.scandir

    def scandir(folder: str) -> object:
        if Path(folder).name == "a":  # permissions do not stop root, who may run this
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    items = read(tmp_path)
    assert [type(item) for item in items] == [Document, Unreadable]
    assert "Permission denied" in str(items[1])


def test_a_very_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 100)
    item = one(tmp_path / "a.txt", b"x" * 101)
    assert isinstance(item, Unreadable)
    assert "is larger than" in item.message


def test_one_bad_file_ends_nothing_and_files_are_opened_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(9):
        (tmp_path / f"{i}.txt").write_bytes(b"\0" * 99 if i == 4 else b"text")
    opened: list[str] = []
    real = documents.load
    monkeypatch.setattr(documents, "load", lambda found, stdin: opened.append(found.source) or real(found, stdin))
    items = read_documents([tmp_path])
    next(items)
    assert len(opened) == 1
    assert [type(item) for item in items] == [Document] * 3 + [Unreadable] + [Document] * 4


def test_rows_are_documents_with_names_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    items = read(tmp_path / "a.jsonl")
    assert [(i.source, i.id, i.text) for i in items if isinstance(i, Document)] == [
        (f"{tmp_path}/a.jsonl:1", "a", "First."),
        (f"{tmp_path}/a.jsonl:2", "b", "Second."),
    ]
    (tmp_path / "a.csv").write_bytes(CSV)
    assert [(i.source, i.id, i.text) for i in read(tmp_path / "a.csv") if isinstance(i, Document)] == [
        (f"{tmp_path}/a.csv:2", "a", "First."),
        (f"{tmp_path}/a.csv:3", "b", "Second,\nlonger."),
    ]


@pytest.mark.parametrize(
    "content, texts",
    [
        (b'[\n{"text": "One."},\n"Two."]', ["One.", "Two."]),
        (b'{\n "text": "One\\ud800."\n}', ["One\ufffd."]),
        (b'{"body": "One.", "n": 1}\n\n{"body": "Two."}', ["One.", "Two."]),
    ],
)
def test_json_comes_in_several_shapes(tmp_path: Path, content: bytes, texts: list[str]) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert [item.text for item in read(tmp_path / "a.json") if isinstance(item, Document)] == texts


def test_a_row_without_a_clear_text_names_its_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "x", "b": "y"}\n{"text": 5}\nno json\n{"a": "z"}\n[1]\n{"text": ""}\n')
    items = read(path)
    assert [type(item) for item in items] == [Unreadable] * 3 + [Document] + [Unreadable] * 2
    assert "its fields: a, b." in str(items[0])
    assert "--field" in str(items[0])
    assert [item.text for item in read(path, field="a") if isinstance(item, Document)] == ["x", "z"]
    assert "has no field 'nope'; its fields: a, b." in str(read(path, field="nope")[0])


def test_what_is_done_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.jsonl").write_bytes(JSONL)
    finished = {(i.source, i.sha256) for i in read(tmp_path) if isinstance(i, Document)}
    assert [i.why for i in read(tmp_path, done=lambda *key: key in finished) if isinstance(i, Skipped)] == ["done"] * 3
    (tmp_path / "b.jsonl").write_bytes(JSONL.replace(b"Second", b"Changed"))
    again = [i.text for i in read(tmp_path, done=lambda *key: key in finished) if isinstance(i, Document)]
    assert again == ["Changed."]


def test_content_decides_what_a_misnamed_file_is(tmp_path: Path) -> None:
    item = one(tmp_path / "a.txt", samples.pdf(["A page."]))
    assert isinstance(item, Document)
    assert (item.text, item.format) == ("A page.", "PDF")
    assert item.warnings == ("it is called .txt but is PDF, and is read as that",)
    plain = one(tmp_path / "b.pdf", b"Only text.")
    assert isinstance(plain, Document)
    assert plain.warnings == ("it is called .pdf but is text, and is read as that",)


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lxml.html", None)
    item = one(tmp_path / "a.html", HTML)
    assert isinstance(item, Unreadable)
    assert "lxml" in item.message


WHOLE: dict[str, Callable[[], bytes]] = {
    "a.txt": lambda: "Größe, 漢字 and more. ".encode() * 9,
    "b.txt": lambda: "Größe, 漢字 and more. ".encode("utf-16") * 9,
    "a.html": lambda: HTML,
    "a.srt": lambda: SRT,
    "a.vtt": lambda: b"WEBVTT\n\n" + SRT.replace(b",", b"."),
    "a.jsonl": lambda: JSONL,
    "a.json": lambda: b"[" + JSONL.strip().replace(b"\n", b",") + b"]",
    "a.csv": lambda: CSV,
    "a.docx": lambda: samples.docx(samples.paragraph("One", "berschrift1") + samples.paragraph("Text.")),
    "a.epub": lambda: samples.epub(["<p>One.</p>", "<p>Two.</p>"]),
}


def damaged(rng: random.Random, content: bytes) -> bytes:
    """The content cut short, with bytes flipped, taken out, doubled or swapped for zeros."""
    out = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 30])):
        at = rng.randrange(len(out))
        size = rng.choice([1, 1, 4, 40])
        match rng.randrange(5):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + size]
            case 2:
                out[at:at] = out[at : at + size] * rng.choice([1, 50])
            case 3:
                out[at : at + size] = bytes(len(out[at : at + size]))
            case _:
                del out[max(at, 1) :]
        out = out or bytearray(b"x")
    return bytes(out)


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_file_is_a_document_or_an_error_and_nothing_else(name: str, tmp_path: Path) -> None:
    whole = WHOLE[name]()
    path = tmp_path / name
    assert isinstance(one_of(path, whole)[0], Document)
    rng = random.Random(name)
    for _ in range(150):
        for item in one_of(path, damaged(rng, whole)):
            if isinstance(item, Document):
                assert item.text.strip()
                item.text.encode()
            else:
                assert isinstance(item, Unreadable)
                assert item.message.endswith(".")
                assert "\n" not in item.message


def one_of(path: Path, content: bytes) -> list[Document | Unreadable | Skipped]:
    path.write_bytes(content)
    return read(path)


def test_damaged_pdfs_are_errors_too(tmp_path: Path) -> None:
    """As above, in this process: the reader's child is the same code with bounds around it."""
    from localllm.data.readers import pdf_child

    whole, rng = samples.pdf(["One page.", "Another."], title="T"), random.Random(0)
    for _ in range(150):
        result = pdf_child._read(damaged(rng, whole), 20)
        assert result.keys() in ({"problem", "hint"}, {"title", "pages", "failed"})


def test_every_suffix_has_a_reader_and_a_test() -> None:
    tested = {Path(name).suffix for name in WHOLE} | {".pdf"}
    assert {kinds.BY_SUFFIX[suffix] for suffix in tested} | {"Markdown"} == set(kinds.BY_SUFFIX.values())
