"""Whole files through llama.cpp's quantizer in its child process: what comes out, what is refused, how it ends."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from localllm.engine import quantizer
from localllm.engine.llama import LlamaEngine
from localllm.engine.quantize import FILE_TYPES, least_bytes, quantize_chunk, quantize_model, quantizing
from localllm.errors import (
    CancelledError,
    DataError,
    EngineError,
    InvalidModelError,
    StorageError,
    UsageError,
)
from localllm.weights import beside
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.quant import dequantize, read_blocks


def tensor(file: GGUFFile, name: str) -> np.ndarray:
    info = file.tensors[name]
    return dequantize(read_blocks(file, info), info.type, info.shape)


def matrix_of(file: GGUFFile, path: Path, name: str = "") -> Path:
    """An importance matrix, in the old form, of the matrices with that in their names: early columns matter most."""
    infos = [info for info in file.tensors.values() if len(info.shape) == 2 and name in info.name]
    out = struct.pack("<i", len(infos))
    for info in infos:
        raw = info.name.encode()
        values = np.linspace(10, 0.1, info.shape[1], dtype="<f4").tobytes()
        out += struct.pack(f"<i{len(raw)}sii", len(raw), raw, 1, info.shape[1]) + values
    path.write_bytes(out + struct.pack("<ii5s", 9, 5, b"words"))
    return path


def test_every_type_has_a_number_in_llama_cpp() -> None:
    import llama_cpp

    assert all(hasattr(llama_cpp, f"LLAMA_FTYPE_{name}") for name in FILE_TYPES.values())


def test_a_model_becomes_another_type_and_runs(guide_path: Path, tmp_path: Path) -> None:
    source, target = read_header(guide_path), tmp_path / "folder" / "new.gguf"
    seen = [(step.done, step.total) for step in quantizing(guide_path, target, "q8_0", n_threads=1)]
    assert seen == [(n, len(source.tensors)) for n in range(1, len(source.tensors) + 1)]
    assert os.listdir(target.parent) == ["new.gguf"]
    made = read_header(target)
    assert made.metadata["general.file_type"] == 7
    assert made.tensors["blk.0.ffn_up.weight"].type == "Q8_0"
    for name in ("blk.0.ffn_up.weight", "output_norm.weight"):
        old, new = tensor(source, name), tensor(made, name)
        assert np.abs(new - old).max() <= np.abs(old).max() / 127
    engine = LlamaEngine.open(target, 64, 1)
    assert np.isfinite(engine.logits([5, 6, 7])).all()
    engine.close()


def test_tensors_are_the_blocks_that_quantize_chunk_makes(guide_path: Path, tmp_path: Path) -> None:
    quantize_model(guide_path, tmp_path / "f32.gguf", "F32", n_threads=1)
    f32 = read_header(tmp_path / "f32.gguf")
    for importance in (None, matrix_of(f32, tmp_path / "i.dat")):
        quantize_model(tmp_path / "f32.gguf", tmp_path / "new.gguf", "Q4_K_M", imatrix=importance, n_threads=1)
        made = read_header(tmp_path / "new.gguf")
        for name in ("blk.0.attn_q.weight", "blk.1.ffn_down.weight"):
            info = made.tensors[name]
            weights = np.linspace(10, 0.1, info.shape[1], dtype=np.float32) if importance else None
            expected = quantize_chunk(tensor(f32, name), info.type, weights)
            assert read_blocks(made, info).tobytes() == expected
    assert made.metadata["quantize.imatrix.file"] == "i.dat"
    assert made.metadata["quantize.imatrix.dataset"] == "words"
    assert made.metadata["quantize.imatrix.chunks_count"] == 9
    assert made.metadata["quantize.imatrix.entries_count"] == sum(len(i.shape) == 2 for i in f32.tensors.values())


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q5_K", "Q4_K_M", "Q4_0", "Q3_K_S", "Q2_K", "TQ1_0", "Q1_0", "IQ4_XS"])
def test_a_file_takes_no_less_than_is_said_beforehand(guide_path: Path, tmp_path: Path, kind: str) -> None:
    quantize_model(guide_path, tmp_path / "new.gguf", kind, n_threads=1)
    said, size = least_bytes(read_header(guide_path), kind), (tmp_path / "new.gguf").stat().st_size
    assert 0.4 * size < said < size


def test_pure_gives_one_type(guide_path: Path, tmp_path: Path) -> None:
    quantize_model(guide_path, tmp_path / "pure.gguf", "Q4_0", pure=True, n_threads=1)
    types = {info.type for info in read_header(tmp_path / "pure.gguf").tensors.values() if len(info.shape) == 2}
    assert types == {"Q4_0"}


@pytest.mark.parametrize(
    "kind, options, expected, words",
    [
        ("Q4_K_X", {}, UsageError, "Q4_K_M"),
        ("IQ2_XS", {}, EngineError, "importance matrix.*--imatrix"),
        ("Q4_0", {"requantize": False}, EngineError, "quantized already"),
    ],
)
def test_refusals_say_what_to_do(
    guide_path: Path, tmp_path: Path, kind: str, options: dict, expected: type[Exception], words: str
) -> None:
    with pytest.raises(expected, match=words):
        quantize_model(guide_path, tmp_path / "new.gguf", kind, n_threads=1, **options)
    assert os.listdir(tmp_path) == []


def test_files_that_cannot_be_quantized(guide_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(guide_path.read_bytes())
    with pytest.raises(UsageError, match="replace the model"):
        quantize_model(copy, copy, "Q8_0")
    with pytest.raises(StorageError, match="is a folder"):
        quantize_model(copy, tmp_path, "Q8_0")
    copy.write_bytes(guide_path.read_bytes()[:-1000])
    with pytest.raises(InvalidModelError, match="truncated"):
        quantize_model(copy, tmp_path / "new.gguf", "Q8_0")


def test_importance_matrices_of_other_models_are_refused(guide_path: Path, tmp_path: Path) -> None:
    file = read_header(guide_path)
    path = tmp_path / "i.dat"
    made = matrix_of(file, path, "blk.0.ffn_down.weight").read_bytes()
    for other, words in ((b"blk.0.ffn_gone.weight", "says nothing"), (b"blk.0.ffn_gate.weight", "another model")):
        path.write_bytes(made.replace(b"blk.0.ffn_down.weight", other))
        with pytest.raises(DataError, match=words):
            quantize_model(guide_path, tmp_path / "new.gguf", "Q4_0", imatrix=path)


def test_stopping_ends_the_child_and_leaves_nothing(guide_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "new.gguf"
    cancel = threading.Event()
    steps = quantizing(guide_path, target, "IQ3_S", n_threads=1, cancel=cancel)
    next(steps)
    cancel.set()
    with pytest.raises(CancelledError):
        for _ in steps:
            pass
    assert os.listdir(target.parent) == []


def test_a_child_that_dies_is_an_error_here(guide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(subprocess.Popen):
        def __init__(self, command: list[str], **options: object) -> None:
            super().__init__([sys.executable, "-c", "import os; os.abort()"], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(quantizer.subprocess, "Popen", Dying)
    with pytest.raises(EngineError, match=r"could not be quantized to Q8_0 \(SIGABRT\)"):
        quantize_model(guide_path, tmp_path / "new.gguf", "Q8_0")
    assert not (tmp_path / "new.gguf").exists()


def test_a_disk_without_room_is_found_first(guide_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(StorageError, match=r"new\.gguf takes at least"):
        quantize_model(guide_path, tmp_path / "new.gguf", "Q8_0")


def test_a_disk_that_fills_is_told(guide_path: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: llama.cpp sees the same failed write."""
    code = (
        "import resource, signal, sys; from pathlib import Path; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from localllm.engine.quantize import quantize_model\n"
        "from localllm.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: quantize_model(Path(sys.argv[1]), Path(sys.argv[2]), 'Q8_0')\n"
        "except StorageError as error: print('storage', error)\n"
    )
    target = tmp_path / "out" / "new.gguf"
    run = subprocess.run([sys.executable, "-c", code, guide_path, target], capture_output=True, text=True, check=False)
    assert run.stdout.startswith("storage"), run.stderr
    assert "new.gguf" in run.stdout
    assert os.listdir(target.parent) == []


def test_the_child_does_not_outlive_its_parent(guide_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from localllm.engine import quantizer, quantize\n"
        "start = quantizer.subprocess.Popen\n"
        "def told(*a, **k):\n    c = start(*a, **k); print(c.pid, flush=True); return c\n"
        "quantizer.subprocess.Popen = told\n"
        "quantize.quantize_model(Path(sys.argv[1]), Path(sys.argv[2]), 'IQ3_S', n_threads=1)\n"
    )
    command = [sys.executable, "-c", code, str(guide_path), str(tmp_path / "new.gguf")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 20
    while time.monotonic() < end and _lives(child):
        time.sleep(0.05)
    assert not _lives(child)
    for path in tmp_path.glob(".new.gguf*"):  # a child that ran on would have finished its file
        with pytest.raises(InvalidModelError):
            read_header(path)


def _lives(pid: int) -> bool:
    """Whether that process runs; one that has ended but that nobody has waited for does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")
