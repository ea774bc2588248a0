"""Merging: the merged file answers like base and adapter together, and keeps every byte that no adapter touches."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.engine.llama import LlamaEngine
from localllm.engine.quantize import quantize_chunk, quantize_model
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
from localllm.tasks.merging import Merged, MergeProgress, MergeRequest, MergeStarted, merge
from localllm.weights import beside
from localllm.weights.entries import Typed
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.quant import dequantize, read_blocks
from localllm.weights.writer import Replacement, copy_gguf
from tests.weights.oracle import fixture

TOKENS = list(range(5, 37))


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


def lora(path: Path, base: GGUFFile, names: list[str], *, rank: int = 4, std: float = 0.1, sha: str = "") -> Path:
    """A random LoRA over those tensors of the base, whatever they are."""
    random = np.random.default_rng(len(path.name))
    writer = gguf.GGUFWriter(path, base.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0 * rank)
    if sha:
        writer.add_string("localllm.base.sha256", sha)
    for number, name in enumerate(names):
        *experts, out, width = base.tensors[name].shape
        r = rank + number % 2
        a, b = (*experts, r, width), (*experts, out, r)
        if name == "token_embd.weight":
            a, b = (out, r), (width, r)
        writer.add_tensor(f"{name}.lora_a", random.normal(0, std, a).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", random.normal(0, std, b).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(path: Path, *adapters: tuple[Path, float]) -> np.ndarray:
    engine = LlamaEngine.open(path, 64, 1, exact=True)
    engine.set_adapters(adapters)
    try:
        return engine.logits(TOKENS)
    finally:
        engine.close()


def run(registry: Registry, model: Path, adapters: list[tuple[Path, float]], out: Path, **options: object) -> Merged:
    request = MergeRequest(str(model), [(str(path), scale) for path, scale in adapters], out, **options)  # type: ignore[arg-type]
    events = list(merge(registry, request))
    assert isinstance(events[0], MergeStarted)
    steps = [event for event in events if isinstance(event, MergeProgress)]
    assert [step.done for step in steps] == list(range(1, steps[0].total + 1))
    assert isinstance(events[-1], Merged)
    return events[-1]


def raw(file: GGUFFile, name: str) -> bytes:
    info = file.tensors[name]
    return file.path.read_bytes()[info.offset : info.offset + info.nbytes]


def tensor(file: GGUFFile, name: str) -> np.ndarray:
    return dequantize(read_blocks(file, file.tensors[name]), file.tensors[name].type, file.tensors[name].shape)


def as_f32(source: Path, folder: Path) -> GGUFFile:
    quantize_model(source, folder / "f32.gguf", "F32", n_threads=1)
    return read_header(folder / "f32.gguf")


GUIDE = ["blk.0.attn_q.weight", "blk.0.ffn_down.weight", "blk.1.attn_v.weight", "blk.1.ffn_up.weight"]


def agrees(merged: np.ndarray, attached: np.ndarray, base: np.ndarray) -> None:
    """In float32 a product with W + s B A and one with W and then s B A differ by rounding alone."""
    size = np.abs(attached).max()
    assert np.abs(attached - base).max() > 0.1 * size  # the adapters do something
    assert np.abs(merged - attached).max() < 2e-5 * size


def test_the_merged_model_answers_like_base_and_adapters(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = as_f32(guide_path, tmp_path)
    first = lora(tmp_path / "first.gguf", base, GUIDE)
    second = lora(tmp_path / "another.gguf", base, GUIDE[1:3], rank=2)
    adapters = [(first, 1.0), (second, -0.5)]
    merged = run(registry, base.path, adapters, tmp_path / "merged.gguf")
    agrees(logits(merged.path), logits(base.path, *adapters), logits(base.path))
    assert (merged.changed, merged.bytes) == (4, merged.path.stat().st_size)
    assert merged.kept == pytest.approx(1, abs=1e-4)
    assert merged.cosine == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", ["llama", "qwen3moe"])
def test_converted_models_and_stacks_of_experts(registry: Registry, name: str, tmp_path: Path) -> None:
    base = as_f32(fixture(name), tmp_path)
    parts = ("attn_q.", "attn_output.", "ffn_up", "ffn_down", "ffn_gate_exps")
    names = [tensor for tensor in base.tensors if any(part in tensor for part in parts)]
    assert ("blk.0.ffn_up_exps.weight" in names) == (name == "qwen3moe")
    adapter = lora(tmp_path / "adapter.gguf", base, names, std=0.03)
    merged = run(registry, base.path, [(adapter, 1.5)], tmp_path / "merged.gguf")
    agrees(logits(merged.path), logits(base.path, (adapter, 1.5)), logits(base.path))


def test_a_tied_embedding_changes_input_and_output(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = as_f32(guide_path, tmp_path)
    assert "output.weight" not in base.tensors
    adapter = lora(tmp_path / "adapter.gguf", base, ["token_embd.weight"], std=0.02)
    merged = read_header(run(registry, base.path, [(adapter, 1.0)], tmp_path / "merged.gguf").path)
    halves = read_header(adapter)
    a, b = tensor(halves, "token_embd.weight.lora_a"), tensor(halves, "token_embd.weight.lora_b")
    wanted = tensor(base, "token_embd.weight") + 2 * a @ b.T
    assert np.abs(tensor(merged, "token_embd.weight") - wanted).max() < 1e-5
    assert np.abs(logits(merged.path) - logits(base.path)).max() > 0.1  # llama.cpp loads and runs it


def test_only_what_the_adapters_touch_is_changed(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = read_header(guide_path)
    adapter = lora(tmp_path / "adapter.gguf", base, GUIDE)
    done = run(registry, guide_path, [(adapter, 1.0)], tmp_path / "merged.gguf")
    merged = read_header(done.path)
    assert list(merged.tensors) == list(base.tensors)
    for name, info in merged.tensors.items():
        assert (info.type, info.shape) == (base.tensors[name].type, base.tensors[name].shape)
        assert (raw(merged, name) == raw(base, name)) == (name not in GUIDE)
    assert 0.9 < done.kept < 1.1
    assert 0.9 < done.cosine < 1
    attached, alone, bare = logits(guide_path, (adapter, 1.0)), logits(done.path), logits(guide_path)
    assert np.abs(alone - attached).mean() < 0.3 * np.abs(bare - attached).mean()


def test_the_file_says_what_was_merged(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = read_header(guide_path)
    sha = registry.sha256(guide_path)
    first = lora(tmp_path / "first.gguf", base, GUIDE, sha=sha)
    second = lora(tmp_path / "another.gguf", base, GUIDE)
    merged = read_header(run(registry, guide_path, [(first, 1.0), (second, 0.25)], tmp_path / "m.gguf").path)
    old, new = (gguf.GGUFReader(path).fields for path in (guide_path, merged.path))
    kept = {
        key for key in old if key in new and not key.startswith("GGUF.") and old[key].contents() == new[key].contents()
    }
    assert set(base.metadata) - kept == {"general.name"}
    said = {key: value for key, value in merged.metadata.items() if key not in kept}
    assert said.pop("general.name") == f"{base.metadata['general.name']} + first + another"
    assert {key: list(said.pop(f"localllm.merged.{key}")) for key in ("adapters", "sha256", "scales")} == {  # type: ignore[arg-type]
        "adapters": ["first", "another"],
        "sha256": [registry.sha256(first), registry.sha256(second)],
        "scales": [1.0, 0.25],
    }
    assert said == {"localllm.merged.base.name": "guide", "localllm.merged.base.sha256": sha}
    assert not [key for key in merged.metadata if key.startswith("adapter.")]


def test_a_name_that_llama_cpp_would_act_upon_is_not_taken_over(
    registry: Registry, guide_path: Path, tmp_path: Path
) -> None:
    base = read_header(guide_path)
    adapter = lora(tmp_path / "Phi-3 style.gguf", base, GUIDE)
    merged = read_header(run(registry, guide_path, [(adapter, 1.0)], tmp_path / "merged.gguf").path)
    assert merged.metadata["general.name"] == base.metadata["general.name"]


@pytest.mark.parametrize("kind, number, bound", [("Q8_0", 7, 0.01), ("f16", 1, 1e-3), ("F32", 0, 1e-6)])
def test_a_type_for_the_whole_file(
    registry: Registry, guide_path: Path, tmp_path: Path, kind: str, number: int, bound: float
) -> None:
    base = read_header(guide_path)
    adapter = lora(tmp_path / "adapter.gguf", base, GUIDE)
    done = run(registry, guide_path, [(adapter, 1.0)], tmp_path / "out/merged.gguf", type=kind)
    assert os.listdir(done.path.parent) == ["merged.gguf"]
    merged = read_header(done.path)
    assert merged.metadata["general.file_type"] == number
    assert merged.metadata["localllm.merged.base.name"] == "guide"
    halves = read_header(adapter)
    for name in base.tensors:
        wanted = tensor(base, name)
        if name in GUIDE:
            a, b = (tensor(halves, f"{name}.lora_{half}") for half in "ab")
            wanted = wanted + 2 * 4 / b.shape[-1] * b @ a
        if len(wanted.shape) == 2:
            assert merged.tensors[name].type == kind.upper()
            assert np.abs(tensor(merged, name) - wanted).max() < bound * np.abs(wanted).max()
    assert done.kept == pytest.approx(1, abs=0.01)


def test_types_that_stay_keep_their_bytes(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    """What is of the wanted type already is not rounded a second time."""
    quantize_model(guide_path, tmp_path / "base.gguf", "Q8_0", n_threads=1)
    base = read_header(tmp_path / "base.gguf")
    adapter = lora(tmp_path / "adapter.gguf", base, GUIDE)
    typed = run(registry, base.path, [(adapter, 1.0)], tmp_path / "typed.gguf", type="Q8_0")
    own = run(registry, base.path, [(adapter, 1.0)], tmp_path / "own.gguf")
    one, other = read_header(typed.path), read_header(own.path)
    assert all(raw(one, name) == raw(other, name) for name in base.tensors)
    assert all((raw(one, name) == raw(base, name)) == (name not in GUIDE) for name in base.tensors)
    assert (typed.kept, typed.cosine) == pytest.approx((own.kept, own.cosine), rel=1e-5)


def test_a_change_too_small_for_four_bits_is_reported(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = read_header(guide_path)
    small = [n for n in GUIDE if base.tensors[n].type == "Q4_K"]
    adapter = lora(tmp_path / "adapter.gguf", base, small)
    strong = run(registry, guide_path, [(adapter, 1.0)], tmp_path / "strong.gguf")
    weak = run(registry, guide_path, [(adapter, 1e-3)], tmp_path / "weak.gguf")
    rescued = run(registry, guide_path, [(adapter, 1e-3)], tmp_path / "rescued.gguf", type="F32")
    assert weak.kept_tensor in small
    assert weak.cosine < 0.5 < strong.cosine
    assert rescued.cosine > 0.99
    assert weak.kept <= weak.kept_overall < 0.9 * strong.kept_overall


def importance(path: Path, name: str, columns: int) -> Path:
    values = np.where(np.arange(columns) % 2, 100, 0.01).astype("<f4").tobytes()
    path.write_bytes(struct.pack(f"<ii{len(name)}sii", 1, len(name), name.encode(), 1, columns) + values)
    return path


def test_an_importance_matrix_is_used(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    base = read_header(guide_path)
    name = next(n for n in GUIDE if base.tensors[n].type == "Q4_K")
    adapter = lora(tmp_path / "adapter.gguf", base, [name])
    matrix = importance(tmp_path / "i.dat", name, base.tensors[name].shape[1])
    wanted = tensor(
        read_header(run(registry, guide_path, [(adapter, 1.0)], tmp_path / "f32.gguf", type="F32").path), name
    )
    for kind in (None, "Q4_K_S"):
        off = {}
        for used in (None, matrix):
            out = run(
                registry, guide_path, [(adapter, 1.0)], tmp_path / "m.gguf", type=kind, imatrix=used, overwrite=True
            )
            off[used] = ((tensor(read_header(out.path), name) - wanted) ** 2)[:, 1::2].mean()
        assert off[matrix] < 0.95 * off[None]


def test_tensors_of_few_bits_need_an_importance_matrix(registry: Registry, guide_path: Path, tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    base = read_header(guide_path)
    matrix = importance(tmp_path / "i.dat", name, base.tensors[name].shape[1])
    blocks = quantize_chunk(tensor(base, name), "IQ3_XXS", np.ones(base.tensors[name].shape[1], np.float32))
    small = Replacement("IQ3_XXS", base.tensors[name].shape, lambda: [blocks])
    copy_gguf(base, tmp_path / "base.gguf", changed={name: small})
    adapter = lora(tmp_path / "adapter.gguf", base, [name])
    with pytest.raises(UnsupportedModelError, match=r"importance matrix.*--imatrix"):
        run(registry, tmp_path / "base.gguf", [(adapter, 1.0)], tmp_path / "m.gguf")
    done = run(registry, tmp_path / "base.gguf", [(adapter, 1.0)], tmp_path / "m.gguf", imatrix=matrix)
    assert read_header(done.path).tensors[name].type == "IQ3_XXS"


# Refusals


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
