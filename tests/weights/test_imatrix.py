"""Importance matrices in both forms, against what llama.cpp makes of their numbers, and damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.errors import DataError, InvalidModelError
from localllm.weights.imatrix import read_imatrix

SUMS = np.array([[4, 8, 0, 2], [9, 9, 9, 9], [1, 2, 3, 4]], np.float32)
COUNTS = np.array([[4], [0], [8]], np.float32)
MEANS = [1, 2, 0, 0.5, 1, 1, 1, 1, 0.125, 0.25, 0.375, 0.5]  # a matrix that nothing reached counts as ones


def write_gguf(path: Path, tensors: dict[str, np.ndarray], *, leave_out: str = "") -> Path:
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    if leave_out != "datasets":
        writer.add_array("imatrix.datasets", ["calibration.txt"])
    if leave_out != "chunks":
        writer.add_uint32("imatrix.chunk_count", 12)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def dat(entries: list[tuple[bytes, int, list[float]]], trailer: bytes = b"") -> bytes:
    out = struct.pack("<i", len(entries))
    for name, calls, values in entries:
        out += struct.pack(f"<i{len(name)}sii{len(values)}f", len(name), name, calls, len(values), *values)
    return out + trailer


TRAILER = struct.pack("<ii3s", 12, 3, b"txt")
ENTRIES = [(b"blk.0.ffn_up.weight", 4, [4.0, 2.0]), (b"output.weight", 0, [3.0])]


def test_reads_the_means_of_a_gguf(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "i.gguf", {"x.weight.in_sum2": SUMS, "x.weight.counts": COUNTS})
    matrix = read_imatrix(path)
    assert (matrix.dataset, matrix.chunks) == ("calibration.txt", 12)
    assert {name: list(values) for name, values in matrix.importance.items()} == {"x.weight": MEANS}
    assert matrix.importance["x.weight"].dtype == np.float32


@pytest.mark.parametrize("trailer, facts", [(TRAILER, ("txt", 12)), (b"", ("", 0))])
def test_reads_the_means_of_the_old_form(tmp_path: Path, trailer: bytes, facts: tuple[str, int]) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(dat(ENTRIES, trailer))
    matrix = read_imatrix(path)
    assert (matrix.dataset, matrix.chunks) == facts
    assert {name: list(values) for name, values in matrix.importance.items()} == {
        "blk.0.ffn_up.weight": [1.0, 0.5],
        "output.weight": [3.0],
    }


def test_experts_have_a_row_each(tmp_path: Path) -> None:
    matrix = read_imatrix(
        write_gguf(tmp_path / "i.gguf", {"x.weight.in_sum2": SUMS, "x.weight.counts": COUNTS}),
    )
    found = matrix.of("x.weight", (3, 7, 4))
    assert found is not None
    assert np.array_equal(found, np.reshape(MEANS, (3, 4)))
    assert matrix.of("y.weight", (3, 7, 4)) is None
    with pytest.raises(DataError, match=r"12 values for x\.weight, which takes 4"):
        matrix.of("x.weight", (3, 4))


def test_a_truncated_old_form_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path, whole = tmp_path / "i.dat", dat(ENTRIES, TRAILER)
    entries = len(dat(ENTRIES))
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if entries <= length < entries + 8:  # what follows the entries may be missing
            assert read_imatrix(path).chunks == 0
        else:
            with pytest.raises(DataError):
                read_imatrix(path)


@pytest.mark.parametrize(
    "content",
    [
        b"a text that is no matrix",
        struct.pack("<i", -3),
        struct.pack("<ii", 1, -8) + bytes(64),
        struct.pack("<ii", 1, 1 << 30) + bytes(64),
        struct.pack("<ii1sii", 1, 1, b"x", 1, 1 << 30),
        struct.pack("<ii1sii", 1, 1, b"x", 1, -1),
        dat([(b"x", 1, [float("nan")])]),
        dat([(b"x", 1, [1.0, float("inf")])]),
        dat([(b"x", 1, [-1.0])]),
    ],
)
def test_what_is_no_matrix_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"i\.dat"):
        read_imatrix(path)


@pytest.mark.parametrize(
    "tensors, leave_out",
    [
        ({"x.in_sum2": SUMS}, ""),
        ({"x.in_sum2": SUMS, "x.counts": COUNTS.astype(np.float16)}, ""),
        ({"x.in_sum2": SUMS, "x.counts": np.ones((5, 1), np.float32)}, ""),
        ({"x.other": SUMS}, ""),
        ({"x.in_sum2": SUMS, "x.counts": COUNTS}, "chunks"),
        ({"x.in_sum2": SUMS, "x.counts": COUNTS}, "datasets"),
    ],
)
def test_a_gguf_that_is_no_matrix_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray], leave_out: str) -> None:
    with pytest.raises(DataError, match=r"i\.gguf"):
        read_imatrix(write_gguf(tmp_path / "i.gguf", tensors, leave_out=leave_out))


def test_missing_and_damaged_files(tmp_path: Path, guide_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_imatrix(tmp_path / "none.dat")
    with pytest.raises(DataError, match="not an importance matrix"):
        read_imatrix(guide_path)
    path = write_gguf(tmp_path / "i.gguf", {"x.in_sum2": SUMS, "x.counts": COUNTS})
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(InvalidModelError, match="truncated"):
        read_imatrix(path)
