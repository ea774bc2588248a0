"""Merges that cannot be, or are stopped or fail half-way: told in one sentence, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from localllm.errors import (
    AdapterError,
    AdapterMismatchError,
    AdapterNotFoundError,
    CancelledError,
    DataError,
    EngineError,
    ModelError,
    StorageError,
    UnsupportedModelError,
    UsageError,
)
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.merging import MergeProgress, MergeRequest, MergeStarted, merge
from localllm.weights import beside
from localllm.weights.entries import Typed
from localllm.weights.gguf import read_header
from localllm.weights.writer import copy_gguf
from tests.tasks.merge_support import GUIDE, lora, run


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


@pytest.fixture
def adapter(guide_path: Path, tmp_path: Path) -> Path:
    return lora(tmp_path / "adapter.gguf", read_header(guide_path), GUIDE)


def start(registry: Registry, request: MergeRequest) -> None:
    next(iter(merge(registry, request)))


def test_names_that_are_not_there(registry: Registry, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.gguf"
    with pytest.raises(UsageError, match="no adapter"):
        start(registry, MergeRequest("guide", [], out))
    with pytest.raises(AdapterNotFoundError):
        start(registry, MergeRequest("guide", [("nope", 1.0)], out))
    with pytest.raises(UsageError, match="no type of model file"):
        start(registry, MergeRequest("guide", [(str(adapter), 1.0)], out, type="Q9"))
    with pytest.raises(DataError):
        start(registry, MergeRequest("guide", [(str(adapter), 1.0)], out, imatrix=tmp_path / "none"))
    with pytest.raises(UnsupportedModelError, match="not a model"):
        start(registry, MergeRequest(str(adapter), [(str(adapter), 1.0)], out))


def test_an_adapter_of_another_model_is_refused(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    other = lora(tmp_path / "other.gguf", read_header(guide_path), GUIDE, sha="f" * 64)
    with pytest.raises(AdapterMismatchError, match="content hash ffffffffffff"):
        start(registry, MergeRequest("guide", [(str(other), 1.0)], tmp_path / "m.gguf"))


def test_adapters_that_change_nothing_are_told(registry: Registry, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="change nothing"):
        start(registry, MergeRequest("guide", [(str(adapter), 0.0)], tmp_path / "m.gguf"))


def test_no_file_is_replaced_unasked(registry: Registry, guide_path: Path, adapter: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.gguf"
    there.write_bytes(b"old")
    with pytest.raises(StorageError, match="--overwrite"):
        start(registry, MergeRequest("guide", [(str(adapter), 1.0)], there))
    for own in (guide_path, adapter):
        with pytest.raises(UsageError, match="would replace what is merged"):
            start(registry, MergeRequest("guide", [(str(adapter), 1.0)], own, overwrite=True))
    with pytest.raises(StorageError, match="is a folder"):
        start(registry, MergeRequest("guide", [(str(adapter), 1.0)], tmp_path, overwrite=True))
    assert there.read_bytes() == b"old"
    run(registry, guide_path, [(adapter, 1.0)], there, overwrite=True)
    assert read_header(there)


@pytest.mark.parametrize("kind", [None, "Q8_0"])
def test_stopping_anywhere_leaves_nothing(registry: Registry, adapter: Path, tmp_path: Path, kind: str | None) -> None:
    out = tmp_path / "out" / "m.gguf"
    request = MergeRequest("guide", [(str(adapter), 1.0)], out, type=kind)
    events = merge(registry, request)
    next(events)
    first = next(events)
    assert isinstance(first, MergeProgress)
    events.close()  # type: ignore[attr-defined]
    assert os.listdir(out.parent) == []
    steps = first.total
    for stop in (1, steps // 3, steps * 2 // 3, steps - 1):
        cancel = threading.Event()
        with pytest.raises(CancelledError):
            for event in merge(registry, request, cancel):
                if isinstance(event, MergeProgress) and event.done >= stop:
                    cancel.set()
        assert os.listdir(out.parent) == []


def test_room_for_both_files_is_looked_for_first(
    registry: Registry, guide_path: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = guide_path.stat().st_size  # enough for the finished file, not for the changed tensors in float32 beside it
    monkeypatch.setattr(beside.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    events = merge(registry, MergeRequest("guide", [(str(adapter), 1.0)], tmp_path / "out/m.gguf", type="Q4_0"))
    assert isinstance(next(events), MergeStarted)
    with pytest.raises(StorageError, match=r"m\.gguf takes at least .* free"):
        next(events)
    assert os.listdir(tmp_path / "out") == []


def test_nothing_is_left_when_the_quantizer_fails(registry: Registry, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "m.gguf"
    with pytest.raises(EngineError, match="importance matrix"):
        list(merge(registry, MergeRequest("guide", [(str(adapter), 1.0)], out, type="IQ2_XS")))
    assert os.listdir(out.parent) == []


def test_a_disk_that_fills_is_told_of_the_file_that_was_asked_for(
    registry: Registry, guide_path: Path, adapter: Path, tmp_path: Path
) -> None:
    """A limit on file sizes stands for the full disk: the file of changed tensors fits, the finished one does not."""
    code = (
        "import resource, signal, sys; from pathlib import Path; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from localllm.paths import Home; from localllm.store.registry import Registry\n"
        "from localllm.tasks.merging import MergeRequest, merge; from localllm.errors import StorageError\n"
        "limit = int(sys.argv[4]); resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "request = MergeRequest(sys.argv[1], [(sys.argv[2], 1.0)], Path(sys.argv[3]), type='F32')\n"
        "try: list(merge(Registry(Home(Path(sys.argv[3] + '.home'))), request))\n"
        "except StorageError as error: print(error)\n"
    )
    out = tmp_path / "out" / "m.gguf"
    for limit in (1 << 20, 12 << 20):
        command = [sys.executable, "-c", code, str(guide_path), str(adapter), str(out), str(limit)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert said.startswith(f"Cannot write {out} (")
        assert not [name for name in os.listdir(out.parent) if "home" not in name]


def test_a_change_that_grows_past_a_type_is_refused(registry: Registry, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "m.gguf"
    with pytest.raises(UnsupportedModelError, match="finite number"):
        list(merge(registry, MergeRequest("guide", [(str(adapter), 1e9)], out)))
    assert os.listdir(out.parent) == []


def test_part_of_a_split_model_is_refused(registry: Registry, guide_path: Path, adapter: Path, tmp_path: Path) -> None:
    copy_gguf(read_header(guide_path), tmp_path / "part.gguf", metadata={"split.count": Typed("u16", 2)})
    with pytest.raises(ModelError, match="part"):
        start(registry, MergeRequest(str(tmp_path / "part.gguf"), [(str(adapter), 1.0)], tmp_path / "m.gguf"))
