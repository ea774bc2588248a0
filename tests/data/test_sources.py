"""Files of every kind, whole and broken, and the line of each row and each problem."""

from __future__ import annotations

import csv
import json
import random
from contextlib import suppress
from pathlib import Path

import pytest

from localllm.data.dataset import read_dataset, scan_dataset
from localllm.data.sources import read_source
from localllm.errors import DataError

GOOD = b'{"prompt": "p", "completion": "c"}'


def write(tmp_path: Path, content: bytes, name: str = "data.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def problems(path: Path) -> list[tuple[int, str]]:
    return [(bad.line, bad.problem) for bad in scan_dataset(path).bad]


def test_every_bad_line_is_found_and_the_good_ones_are_kept(tmp_path: Path) -> None:
    lines = [GOOD, b"{oops}", GOOD, b'{"text": "\xff"}', b"", b"[" * 100_000, b'{"text": "a', b"\0\0\0", GOOD]
    found = scan_dataset(write(tmp_path, b"\r\n".join(lines)))
    assert [row.line for row in found.rows] == [1, 3, 9]
    assert [bad.line for bad in found.bad] == [2, 4, 6, 7, 8]
    assert found.bad[0].problem == "not JSON (Expecting property name enclosed in double quotes, column 2)."
    assert found.bad[1].problem == "not UTF-8 (byte 11 of the line)."
    with pytest.raises(DataError, match=r"line 2: not JSON .* 5 rows are bad \(lines 2, 4, 6, 7, 8\)") as caught:
        read_dataset(write(tmp_path, b"\n".join(lines)))
    assert caught.value.line == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_byte_order_marks_say_the_encoding(tmp_path: Path, encoding: str) -> None:
    text = '{"text": "Größe"}\r\n{"text": "日本"}\r\n'
    path = write(tmp_path, text.encode(encoding))
    if encoding == "utf-16-le":  # without a mark it could be anything
        with pytest.raises(DataError, match="binary file, or text that is not UTF-8"):
            read_source(path)
    else:
        assert [(row.line, row.text) for row in read_dataset(path)] == [(1, "Größe"), (2, "日本")]


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary file"),
        (b"\x1f\x8b\x08\0\0", "a gzip file"),
        (b"PK\x03\x04", "a zip file"),
        (b"\xff\xfe\0", "not UTF-16 text"),
        (b'{\n "data": [\n  {"text": "a"}\n ]\n}', r'one JSON object \("data"\), not rows'),
    ],
)
def test_a_file_that_is_no_dataset_says_what_it_is(tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        read_source(write(tmp_path, content))
    assert caught.value.hint


def test_a_line_of_a_megabyte_is_read(tmp_path: Path) -> None:
    row = {"prompt": "x" * 1_000_000, "completion": "c"}
    (read,) = read_dataset(write(tmp_path, json.dumps(row).encode()))
    assert len(read.messages[0].content) == 1_000_000
    (table,) = read_dataset(write(tmp_path, f'prompt,completion\n"{"x" * 1_000_000}",c\n'.encode(), "d.csv"))
    assert table.messages == read.messages
    assert csv.field_size_limit() == 131072


@pytest.mark.parametrize(
    "text, lines, problem",
    [
        ('[{"text": "a"},\n{"text": "b"}\n{"text": "c"}]', [1, 2], (3, "a comma is missing")),
        ('[{"text": "a"},\n\n{"text": oops}]', [1], (3, "Expecting value")),
        ('[{"text": "a"},\n{"text": "b"}', [1, 2], (2, "its end is missing")),
        ('[{"text": "a"}]\n[{"text": "b"}]', [1], (2, "something after the end")),
    ],
)
def test_a_broken_array_keeps_what_comes_before(
    tmp_path: Path, text: str, lines: list[int], problem: tuple[int, str]
) -> None:
    found = scan_dataset(write(tmp_path, text.encode(), "data.json"))
    assert [row.line for row in found.rows] == lines
    ((line, said),) = problems(found.path)
    assert line == problem[0]
    assert problem[1] in said


def test_csv_has_quotes_line_ends_and_other_separators(tmp_path: Path) -> None:
    text = 'prompt,completion,note\r\n"a, ""b""\r\nsecond line",c,\r\nd,"e\n\n",x\r\n'
    rows = read_dataset(write(tmp_path, b"\xef\xbb\xbf" + text.encode(), "d.csv"))
    assert [(row.line, row.messages[0].content, row.messages[1].content) for row in rows] == [
        (2, 'a, "b"\r\nsecond line', "c"),
        (4, "d", "e\n\n"),
    ]
    for name, separator in (("d.tsv", "\t"), ("e.csv", ";"), ("f.csv", "\t")):
        table = f"instruction{separator}input{separator}output\na,b{separator}{separator}c\n"
        (row,) = read_dataset(write(tmp_path, table.encode(), name))
        assert row.messages[0].content == "a,b"
        assert row.format == "Alpaca"


def test_turns_in_a_table_are_json(tmp_path: Path) -> None:
    turns = json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]).replace('"', '""')
    (row,) = read_dataset(write(tmp_path, f'messages\n"{turns}"\n'.encode(), "d.csv"))
    assert [m.content for m in row.messages] == ["a", "b"]
    assert problems(write(tmp_path, b'messages\n"[oops"\n', "d.csv"))[0][1].startswith('"messages" holds text that is')


def test_broken_csv_names_the_record(tmp_path: Path) -> None:
    path = write(tmp_path, b'prompt,completion\na,b,c\nd,e\n\nf\n"open,g\nh,i\n', "d.csv")
    assert [row.line for row in scan_dataset(path).rows] == [3]
    found = problems(path)
    assert [line for line, _ in found] == [2, 5, 6]
    assert found[0][1] == "3 fields, but the header names 2 columns."
    assert "quote that is not closed" in found[2][1]
    for header, problem in (("prompt,prompt", "'prompt' is there twice"), (",", "names no columns")):
        with pytest.raises(DataError, match=f"line 1: .*{problem}"):
            read_source(write(tmp_path, f"{header}\na,b\n".encode(), "d.csv"))


def test_plain_text_becomes_rows_that_together_are_the_text(shared: Path) -> None:
    path = shared / "documents" / "the-verdict.txt"
    rows = read_dataset(path)
    text = path.read_text("utf-8-sig")
    assert "".join(row.text or "" for row in rows) == text
    assert [row.continues for row in rows] == [True] * (len(rows) - 1) + [False]
    lines = text.split("\n")
    assert all(lines[row.line - 1].startswith((row.text or "").split("\n")[0][:20]) for row in rows)


def test_parquet_needs_pyarrow_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)  # as if it were not installed
    with pytest.raises(DataError, match=r"needs pyarrow.*pip install 'localllm\[parquet\]'"):
        read_source(write(tmp_path, b"PAR1....PAR1", "d.parquet"))


def test_parquet_rows_are_numbered(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra localllm[parquet] is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="this pyarrow was built without Parquet")
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    path = tmp_path / "d.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"messages": turns}, {"messages": None}]), path)
    found = scan_dataset(path)
    assert (found.kind, found.unit, [row.line for row in found.rows]) == ("Parquet", "row", [1])
    assert [bad.line for bad in found.bad] == [2]
    with pytest.raises(DataError, match=r"d\.parquet: row 2: "):
        read_dataset(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="pyarrow cannot read it"):
        read_source(path)


WHOLE = {
    "d.jsonl": b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 3,
    "d.json": b'[{"instruction": "a", "input": null, "output": "b"},\n {"instruction": "c", "output": "d"}]',
    "d.csv": b'question,answer\n"a, ""b""\nc",d\ne,f\n',
    "e.jsonl": b'{"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "{}"}],'
    b'"tools": [{}]}\n',
}


@pytest.mark.parametrize("name", WHOLE)
def test_whatever_is_damaged_is_a_problem_and_never_a_crash(tmp_path: Path, name: str) -> None:
    rng = random.Random(name)
    pieces = (b'"', b"{", b"[", b"]", b",", b"\n", b"\0", b"\xff", b"null", b"1e999", b"\xef\xbb\xbf", b"", b"[" * 2000)
    for _ in range(300):
        content = bytearray(WHOLE[name])
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(content) + 1)
            content[at : at + rng.randint(0, 3)] = rng.choice(pieces)
        with suppress(DataError):
            found = scan_dataset(write(tmp_path, bytes(content), name))
            assert found.rows or found.bad
            assert all(bad.line >= 1 and bad.problem for bad in found.bad)
