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


def test_every_truncation_is_refused(small: Path) -> None:
    last = max(info.offset + info.nbytes for info in read_header(small).tensors.values())
    for length in range(last - 1, -1, -1):
        with small.open("r+b") as file:
            file.truncate(length)
        with pytest.raises(InvalidModelError):
            read_header(small)


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


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _file(entries: list[bytes], tensors: list[bytes], *, version: int = 3, data: int = 512) -> bytes:
    """A file of entries and tensors as they are, followed by zeros."""
    return b"".join(
        [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(entries)), *entries, *tensors, bytes(data)]
    )


def _tensor(name: bytes = b"t", n: int = 8, offset: int = 0) -> bytes:
    return _text(name) + struct.pack("<IQIQ", 1, n, 0, offset)


def _array(key: bytes, kind: int, count: int, items: bytes = b"") -> bytes:
    return _text(key) + struct.pack("<IIQ", 9, kind, count) + items


U32 = struct.pack("<I", 4)
MALFORMED = {
    "an array of 2^63 elements in a short file": (_file([_array(b"k", 0, 1 << 63)], [], data=0), "more than fit"),
    "an array that ends in its count": (_file([_array(b"k", 0, 1 << 63)], [], data=0)[:43], "truncated"),
    "an array of 2^61 texts": (_file([_array(b"k", 8, 1 << 61)], [_tensor()]), "more than fit"),
    "a count whose bytes wrap around": (
        _file([_array(b"k", 10, (1 << 61) + 1, bytes(8))], [_tensor()]),
        "more than fit",
    ),
    "an array of arrays": (_file([_array(b"k", 9, 1, bytes(12))], [_tensor()]), "element type 9"),
    "an array of an unknown type": (_file([_array(b"k", 13, 1, bytes(8))], [_tensor()]), "element type 13"),
    "a text in an array beyond the file": (
        _file([_array(b"k", 8, 2, _text(b"a") + struct.pack("<Q", (1 << 64) - 8))], [_tensor()]),
        "runs past the end",
    ),
    "a text beyond the file": (
        _file([_text(b"k") + struct.pack("<IQ", 8, 1 << 40)], [_tensor()]),
        "needs .* bytes more",
    ),
    "an unknown value type": (_file([_text(b"k") + struct.pack("<IQ", 13, 0)], [_tensor()]), "unknown value type 13"),
    "an empty key": (_file([_text(b"") + U32 + bytes(4)], [_tensor()]), "'' is empty"),
    "a key twice": (_file([(_text(b"k") + U32 + bytes(4))] * 2, [_tensor()]), "'k' is repeated"),
    "a key with a zero byte": (_file([_text(b"k\0") + U32 + bytes(4)], [_tensor()]), "zero byte"),
    "a key of 70,000 bytes": (_file([_text(b"k" * 70_000) + U32 + bytes(4)], [_tensor()]), "more than 65535"),
    "a tensor name with a zero byte": (_file([], [_tensor(b"t\0")]), "zero byte"),
    "a tensor name of 64 bytes": (_file([], [_tensor(b"t" * 64)]), "more than 63"),
    "a tensor twice": (_file([], [_tensor(), _tensor(offset=32)]), "'t' occurs twice"),
    "tensors that overlap": (_file([], [_tensor(), _tensor(b"u")]), "'u' lies at 0 instead of 32"),
    "tensors with a gap": (_file([], [_tensor(), _tensor(b"u", offset=64)]), "'u' lies at 64 instead of 32"),
    "an offset that wraps around": (_file([], [_tensor(), _tensor(b"u", offset=(1 << 64) - 32)]), "instead of 32"),
    "a tensor larger than the file": (_file([], [_tensor(n=1 << 20)]), "bytes are missing"),
    "a size that wraps around": (_file([], [_tensor(n=(1 << 62) + 1)]), "bytes are missing"),
    "an alignment of 8": (
        _file([_text(b"general.alignment") + U32 + struct.pack("<I", 8)], [_tensor()]),
        "alignment 8",
    ),
    "an alignment of 96": (
        _file([_text(b"general.alignment") + U32 + struct.pack("<I", 96)], [_tensor()]),
        "alignment 96",
    ),
    "an alignment of 0": (_file([_text(b"general.alignment") + U32 + bytes(4)], [_tensor()]), "alignment 0"),
    "an alignment that is a text": (
        _file([_text(b"general.alignment") + struct.pack("<I", 8) + _text(b"32")], [_tensor()]),
        "alignment '32'",
    ),
    "20,000 entries": (
        _file([_text(b"%d" % i) + struct.pack("<IB", 0, 1) for i in range(20_000)], [_tensor()]),
        "claims 20000 metadata entries",
    ),
    "40,000 tensors": (_file([], [_tensor(b"%d" % i, offset=32 * i) for i in range(40_000)]), "claims 40000 tensors"),
    "three megabytes of text": (
        _file([_text(b"k%d" % i) + struct.pack("<I", 8) + _text(bytes(1 << 20)) for i in range(3)], [_tensor()]),
        "more than 2097152 bytes",
    ),
    "five million empty texts": (
        _file([_array(b"k", 8, 5_000_000, bytes(40_000_000))], [_tensor()]),
        "claims 5000000 strings",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_refuses_malformed_files(name: str, tmp_path: Path) -> None:
    content, problem = MALFORMED[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(InvalidModelError, match=problem):
        read_header(path)


@pytest.mark.parametrize("version", [2, 3])
def test_reads_the_versions_that_llama_cpp_reads(version: int, tmp_path: Path) -> None:
    path = tmp_path / "good.gguf"
    path.write_bytes(_file([], [_tensor(), _tensor(b"u", offset=32)], version=version))
    assert read_header(path).version == version


def test_an_overlong_text_is_cut_and_its_place_known(tmp_path: Path) -> None:
    """Some files hold a whole tokenizer.json, which nobody reads."""
    path, size = tmp_path / "good.gguf", 3 << 20
    path.write_bytes(_file([_text(b"k") + struct.pack("<I", 8) + _text(b"x" * size)], [_tensor()]))
    header = read_header(path)
    assert header.metadata["k"] == "x" * (1 << 20)
    start, end = header.entries["k"]
    assert end - start == 8 + 1 + 4 + 8 + size


def test_a_large_vocabulary_is_read_quickly(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.gguf"
    words = b"".join(_text(b"%06d" % i) for i in range(300_000))
    model = _text(b"tokenizer.ggml.model") + struct.pack("<I", 8) + _text(b"gpt2")
    lists = [_array(key, 8, 300_000, words) for key in (b"tokenizer.ggml.tokens", b"tokenizer.ggml.merges")]
    path.write_bytes(_file([model, *lists], [_tensor()]))
    start = time.process_time()
    header = read_header(path)
    assert time.process_time() - start < 1.0  # about 0.15 s on an idle machine
    assert header.metadata["tokenizer.ggml.tokens"][299_999] == "299999"  # type: ignore[index]
