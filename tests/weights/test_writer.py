"""Copies of GGUF files: what is not changed keeps its bytes, what is changed reads back, what fails leaves nothing."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.engine.llama import LlamaEngine
from localllm.errors import CancelledError, InvalidModelError, StorageError
from localllm.weights import beside
from localllm.weights.entries import Typed, encode_entry
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.writer import Replacement, copy_gguf, copying


@pytest.fixture
def small(tmp_path: Path) -> GGUFFile:
    """Three tensors that do not fill their padding, aligned to 64, and some metadata."""
    path = tmp_path / "small.gguf"
    out = gguf.GGUFWriter(path, "llama")
    out.add_custom_alignment(64)
    out.add_uint32("a.number", 7)
    out.add_array("a.words", ["", "é", "three"])
    out.add_string("a.text", "before")
    for name, shape in (("one", (3, 5)), ("two", (2, 3, 4)), ("three", (7,))):
        out.add_tensor(name, np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return read_header(path)


def new(values: np.ndarray, kind: str = "F32") -> Replacement:
    return Replacement(kind, values.shape, lambda: [values.tobytes()])


def raw(file: GGUFFile, name: str) -> bytes:
    info = file.tensors[name]
    return file.path.read_bytes()[info.offset : info.offset + info.nbytes]


def nothing_but(folder: Path, *names: str) -> bool:
    return sorted(p.name for p in folder.iterdir()) == sorted(names)


def test_a_copy_without_changes_is_the_same_file(small: GGUFFile, guide_path: Path, tmp_path: Path) -> None:
    for source in (small, read_header(guide_path)):
        copy_gguf(source, tmp_path / "copy.gguf")
        assert (tmp_path / "copy.gguf").read_bytes() == source.path.read_bytes()


def test_changed_tensors_have_the_new_contents_and_the_others_the_old_bytes(small: GGUFFile, tmp_path: Path) -> None:
    values = np.linspace(-1, 1, 14, dtype=np.float32).reshape(2, 7)
    copy_gguf(small, tmp_path / "copy.gguf", changed={"two": new(values.astype(np.float16), "F16")})
    copy = read_header(tmp_path / "copy.gguf")
    assert list(copy.tensors) == ["one", "two", "three"]
    assert (copy.tensors["two"].type, copy.tensors["two"].shape) == ("F16", (2, 7))
    assert raw(copy, "two") == values.astype(np.float16).tobytes()
    assert raw(copy, "one") == raw(small, "one")
    assert raw(copy, "three") == raw(small, "three")
    assert all((info.offset - copy.data_offset) % 64 == 0 for info in copy.tensors.values())
    theirs = {t.name: t.data for t in gguf.GGUFReader(copy.path).tensors}  # as another reader sees it
    assert np.array_equal(theirs["two"], values.astype(np.float16))


def test_metadata_is_replaced_in_place_added_and_dropped(small: GGUFFile, tmp_path: Path) -> None:
    changes = {
        "a.number": Typed("u32", 9),
        "a.words": None,
        "a.nothing": None,
        "b.text": "nové",
        "b.true": True,
        "b.float": Typed("f32", 0.1),
        "b.flags": Typed("bool", [True, False]),
        "b.counts": Typed("i32", [-1, 2]),
        "b.words": Typed("string", ["x", ""]),
    }
    copy_gguf(small, tmp_path / "copy.gguf", metadata=changes)
    copy = read_header(tmp_path / "copy.gguf")
    assert list(copy.metadata) == [
        "general.architecture", "general.alignment", "a.number", "a.text",
        "b.text", "b.true", "b.float", "b.flags", "b.counts", "b.words",
    ]  # fmt: skip
    read = gguf.GGUFReader(copy.path)
    values = {name: field.contents() for name, field in read.fields.items()}
    assert (values["a.number"], values["a.text"], values["b.text"]) == (9, "before", "nové")
    assert (values["b.true"], values["b.float"]) == (True, np.float32(0.1))
    assert (values["b.flags"], values["b.counts"], values["b.words"]) == ([True, False], [-1, 2], ["x", ""])
    assert read.fields["a.number"].types == [gguf.GGUFValueType.UINT32]
    assert read.fields["b.counts"].types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.INT32]


def test_tensors_can_be_dropped_and_renamed(small: GGUFFile, tmp_path: Path) -> None:
    copy_gguf(
        small, tmp_path / "copy.gguf", keep=lambda info: info.name != "one", rename=lambda n: n.replace("three", "one")
    )
    copy = read_header(tmp_path / "copy.gguf")
    assert list(copy.tensors) == ["two", "one"]
    assert raw(copy, "one") == raw(small, "three")


def test_llama_cpp_runs_a_copy_with_fewer_layers_and_other_types(guide_path: Path, tmp_path: Path) -> None:
    source = read_header(guide_path)
    layers = int(source.metadata["llama.block_count"])  # type: ignore[call-overload]
    norm = source.tensors["output_norm.weight"]
    half = np.frombuffer(raw(source, norm.name), np.float32) / 2
    copy_gguf(
        source,
        tmp_path / "short.gguf",
        keep=lambda info: not info.name.startswith(f"blk.{layers - 1}."),
        changed={norm.name: new(half)},
        metadata={"llama.block_count": Typed("u32", layers - 1)},
    )
    copy_gguf(source, tmp_path / "half.gguf", changed={norm.name: new(half)})
    tokens = list(range(5, 25))
    logits = {}
    for name, path in (("base", guide_path), ("short", tmp_path / "short.gguf"), ("half", tmp_path / "half.gguf")):
        engine = LlamaEngine.open(path, 64, 1, exact=True)
        logits[name] = engine.logits(tokens)
        engine.close()
    # the last norm's weight scales the logits but for what is quantized on the way
    assert np.abs(2 * logits["half"] - logits["base"]).max() < 0.05 * np.abs(logits["base"]).max()
    assert np.abs(logits["short"] - logits["base"]).max() > 0.1 * np.abs(logits["base"]).max()


def test_progress_comes_after_each_tensor_and_the_file_after_the_last(small: GGUFFile, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "copy.gguf"
    seen = []
    for event in copying(small, target):
        seen.append((event.done, event.total, event.tensor))
        assert not target.exists()
    assert seen == [(1, 3, "one"), (2, 3, "two"), (3, 3, "three")]
    assert nothing_but(target.parent, "copy.gguf")


def test_stopping_leaves_nothing_and_keeps_what_was_there(small: GGUFFile, tmp_path: Path) -> None:
    target = tmp_path / "out" / "copy.gguf"
    target.parent.mkdir()
    target.write_bytes(b"old")
    run = copying(small, target)
    next(run)
    run.close()
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        copy_gguf(small, target, cancel=cancel)
    assert target.read_bytes() == b"old"
    assert nothing_but(target.parent, "copy.gguf")


def test_a_full_disk_is_told_and_leaves_nothing(small: GGUFFile, tmp_path: Path) -> None:
    def full() -> Iterator[bytes]:
        yield bytes(4)
        raise OSError(errno.ENOSPC, "No space left on device")

    target = tmp_path / "out" / "copy.gguf"
    with pytest.raises(StorageError, match=r"copy\.gguf.*No space left"):
        copy_gguf(small, target, changed={"one": Replacement("F32", (3,), full)})
    assert nothing_but(target.parent)


def test_a_disk_that_is_too_small_is_found_before_anything_is_written(
    small: GGUFFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = small.path.stat().st_size
    target = tmp_path / "out" / "copy.gguf"
    monkeypatch.setattr(beside.shutil, "disk_usage", lambda _: type("Usage", (), {"free": total - 1}))
    run = copying(small, target)
    with pytest.raises(StorageError, match=r"copy\.gguf takes .* MB free"):
        next(run)
    assert nothing_but(target.parent)
    monkeypatch.setattr(beside.shutil, "disk_usage", lambda _: type("Usage", (), {"free": total}))
    copy_gguf(small, target)
    assert target.stat().st_size == total


def test_what_killed_processes_left_is_removed_and_nothing_else(small: GGUFFile, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = (f".copy.gguf.{gone.pid}.0123abcd.part", f".copy.gguf.{os.getpid()}.0123abcd.part")
    others = (f".other.gguf.{gone.pid}.0123abcd.part", f"copy.gguf.{gone.pid}.0123abcd.part", f".copy.gguf.{gone.pid}")
    twice = f"..copy.gguf.{gone.pid}.0123abcd.part.{gone.pid}.4567abcd.part"
    for name in (*names, twice, *others):
        (folder / name).touch()
    copy_gguf(small, folder / "copy.gguf")
    assert nothing_but(folder, "copy.gguf", names[1], *others)


@pytest.mark.parametrize("place", ["folder", "below a file"])
def test_places_that_cannot_be_written(small: GGUFFile, tmp_path: Path, place: str) -> None:
    target = tmp_path if place == "folder" else small.path / "copy.gguf"
    with pytest.raises(StorageError):
        copy_gguf(small, target)


def test_a_source_that_changed_since_it_was_read(small: GGUFFile, tmp_path: Path) -> None:
    with small.path.open("ab") as file:
        file.write(bytes(64))
    with pytest.raises(InvalidModelError, match="changed"):
        copy_gguf(small, tmp_path / "copy.gguf")
    small.path.unlink()
    with pytest.raises(InvalidModelError, match="cannot be read"):
        copy_gguf(small, tmp_path / "copy.gguf")
    assert nothing_but(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"changed": {"four": new(np.zeros((2, 2), np.float32))}},
        {"changed": {"one": Replacement("F32", (3,), lambda: [bytes(16)])}},
        {"changed": {"one": Replacement("Q8_0", (4, 31), list)}},
        {"changed": {"one": Replacement("F32", (3, 0), list)}},
        {"changed": {"one": new(np.zeros(4, np.float32))}, "keep": lambda info: info.name != "one"},
        {"rename": lambda _: "same"},
        {"rename": lambda name: name + "x" * 63},
        {"metadata": {"general.alignment": Typed("u32", 32)}},
        {"metadata": {"a.number": Typed("u8", 256)}},
        {"metadata": {"a.number": Typed("u24", 1)}},
        {"metadata": {"a.words": Typed("string", [1])}},
    ],
)
def test_changes_that_make_no_gguf_are_refused(small: GGUFFile, tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ValueError):
        copy_gguf(small, tmp_path / "copy.gguf", **changes)
    assert nothing_but(tmp_path, "small.gguf")


def test_an_entry_is_laid_out_as_the_format_says() -> None:
    assert encode_entry("k", Typed("u16", 513)) == struct.pack("<Q1sIH", 1, b"k", 2, 513)
    assert encode_entry("k", "ab") == struct.pack("<Q1sIQ2s", 1, b"k", 8, 2, b"ab")
    assert encode_entry("k", Typed("u8", [1, 2])) == struct.pack("<Q1sIIQ2B", 1, b"k", 9, 0, 2, 1, 2)
