"""The header reader against files written by the gguf package, and against damaged copies of them."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.errors import InvalidModelError, ModelNotFoundError
from localllm.weights.ggml import TYPES
from localllm.weights.gguf import read_header


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A GGUF with every metadata type and three tensors."""
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.u32", 7)
    writer.add_float32("a.f32", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_int64("a.i64", -9)
    writer.add_string("a.text", "žluťoučký")
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.words", ["", "é", "three"])
    rng = np.random.default_rng(0)
    for name, shape, kind in (("one", (4, 64), "Q8_0"), ("two", (2, 256), "Q4_K"), ("three", (5,), "F32")):
        values = rng.standard_normal(shape, dtype=np.float32)
        quantized = gguf.GGMLQuantizationType[kind]
        if kind == "Q4_K":  # gguf-py cannot quantize to it: random bytes will do
            blocks = rng.integers(0, 255, (2, 144), dtype=np.uint8)
            writer.add_tensor(name, blocks, raw_dtype=quantized)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_table_of_types_is_that_of_the_gguf_package() -> None:
    ours = {number: tuple(block) for number, block in TYPES.items()}
    theirs = {kind.value: (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: theirs[number] for number in ours} == ours


def test_reads_what_the_gguf_package_wrote(small: Path) -> None:
    header = read_header(small)
    assert (header.version, header.architecture, header.kind) == (3, "llama", "model")
    assert (header.metadata["a.u32"], header.metadata["a.f32"], header.metadata["a.i64"]) == (7, 0.5, -9)
    assert header.metadata["a.bool"] is True
    assert header.metadata["a.text"] == "žluťoučký"
    assert list(header.metadata["a.numbers"]) == [1, 2, 3]  # type: ignore[arg-type]
    assert list(header.metadata["a.words"]) == ["", "é", "three"]  # type: ignore[arg-type]
    reference = {t.name: t for t in gguf.GGUFReader(small).tensors}
    assert list(header.tensors) == list(reference)
    for name, info in header.tensors.items():
        theirs = reference[name]
        assert (info.offset, info.nbytes, info.type) == (theirs.data_offset, theirs.n_bytes, theirs.tensor_type.name)
        assert info.shape == tuple(int(n) for n in reversed(theirs.shape))


def test_every_truncation_is_refused(small: Path, tmp_path: Path) -> None:
    whole = small.read_bytes()
    last = max(info.offset + info.nbytes for info in read_header(small).tensors.values())
    cut = tmp_path / "cut.gguf"
    for length in range(last):
        cut.write_bytes(whole[:length])
        with pytest.raises(InvalidModelError):
            read_header(cut)


def test_says_how_much_is_missing(small: Path) -> None:
    header = read_header(small)
    last = max(info.offset + info.nbytes for info in header.tensors.values())
    small.write_bytes(small.read_bytes()[: last - 10])
    with pytest.raises(InvalidModelError, match=f"truncated: 10 of {last} bytes are missing"):
        read_header(small)


def test_refuses_what_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match="is a folder"):
        read_header(tmp_path)
    with pytest.raises(ModelNotFoundError, match="There is no file"):
        read_header(tmp_path / "none.gguf")
    for content, problem in (
        (b"", "is empty"),
        (b"<html>", "is not a GGUF"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 1, 1), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 99, 1, 1), "version 99"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "without weights"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "more than fit"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 63), "more than fit"),
    ):
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        with pytest.raises(InvalidModelError, match=problem):
            read_header(path)


@pytest.mark.parametrize(
    "dims, kind, offset, problem",
    [
        ((1 << 40, 1 << 40), 0, 0, "truncated"),  # a product that would wrap
        ((0,), 0, 0, "cannot have the shape"),
        ((33,), 8, 0, "cannot have the shape"),
        ((32,), 77, 0, "unknown type 77"),
        ((32,), 0, 64, "instead of 0"),
        ((1,) * 5, 0, 0, "5 dimensions"),
    ],
)
def test_refuses_malformed_tensors(tmp_path: Path, dims: tuple[int, ...], kind: int, offset: int, problem: str) -> None:
    entry = struct.pack("<Q1sI", 1, b"t", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + entry + struct.pack("<IQ", kind, offset) + bytes(512))
    with pytest.raises(InvalidModelError, match=problem):
        read_header(path)


def test_a_large_vocabulary_is_read_quickly(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    words = b"".join(struct.pack("<Q", 6) + b"%06d" % i for i in range(300_000))
    key = struct.pack("<Q5sIIQ", 5, b"words", 9, 8, 300_000)
    tensor = struct.pack("<Q1sIQIQ", 1, b"t", 1, 1, 0, 0)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + key + words + tensor + bytes(64))
    start = time.perf_counter()
    header = read_header(path)
    assert time.perf_counter() - start < 0.5  # about 0.05 s on an idle machine
    assert header.metadata["words"][299_999] == "299999"  # type: ignore[index]
