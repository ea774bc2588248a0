"""Merged tensors against llama.cpp's llama-export-lora, against exact arithmetic, and adapters that do not fit.

The golden files are made by scripts/make_merge_golden.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from localllm.engine.quantize import quantize_chunk
from localllm.errors import AdapterError, AdapterMismatchError
from localllm.weights import merge
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.merge import Survival, measure, merged, merged_blocks, plan
from localllm.weights.quant import dequantize, read_blocks

GOLDEN = Path(__file__).parent / "merge"
ADAPTERS = (("first.gguf", 0.75), ("second.gguf", -1.25))
CHANGED = {
    "token_embd.weight", "output.weight", "blk.0.attn_q.weight", "blk.0.attn_output.weight", "blk.0.ffn_up.weight",
    "blk.0.ffn_down.weight", "blk.0.ffn_gate_exps.weight",
}  # fmt: skip


def golden() -> merge.Plan:
    adapters = [(read_header(GOLDEN / name), scale) for name, scale in ADAPTERS]
    return plan(read_header(GOLDEN / "base.gguf"), adapters)


def tensor(file: GGUFFile, name: str) -> np.ndarray:
    info = file.tensors[name]
    return dequantize(read_blocks(file, info), info.type, info.shape)


def exact(made: merge.Plan, name: str) -> np.ndarray:
    """The merged tensor in float64."""
    total = tensor(made.base, name).astype(np.float64)
    for path, scale in ADAPTERS:
        adapter = read_header(GOLDEN / path)
        a, b = (tensor(adapter, f"{name}.lora_{half}").astype(np.float64) for half in "ab")
        s = scale * float(adapter.metadata["adapter.lora.alpha"]) / b.shape[-1]  # type: ignore[arg-type]
        total += s * (a @ b.T if name == "token_embd.weight" else b @ a)
    return total


def blocks(made: merge.Plan, name: str, kind: str) -> np.ndarray:
    raw = b"".join(merged_blocks(made, name, kind, quantize_chunk))
    by_block = np.frombuffer(raw, np.uint8).reshape(-1, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1])
    return dequantize(by_block, kind, made.base.tensors[name].shape)


@pytest.fixture(params=[merge.PIECE, 700])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Tensors in one piece, and in pieces of ten rows or so."""
    monkeypatch.setattr(merge, "PIECE", request.param)
    return int(request.param)


def test_the_tensors_that_change_are_those_of_the_adapters() -> None:
    made = golden()
    assert set(made.changes) == CHANGED
    assert all(len(changes) == 2 for changes in made.changes.values())


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("name", sorted(CHANGED))
def test_equals_llama_export_lora_to_the_rounding(name: str) -> None:
    made = golden()
    theirs = read_header(GOLDEN / "merged.gguf")
    kind = theirs.tensors[name].type
    ours, expected = blocks(made, name, kind), tensor(theirs, name)
    wanted = exact(made, name)
    if kind == "F16":
        # Sums in another order may fall on the other side of a tie: then the two are neighbours, never further apart.
        step = np.spacing(np.abs(expected).astype(np.float16)).astype(np.float32)
        assert np.abs(ours - expected).max() <= step.max()
        assert (np.abs(ours - expected) <= step).all()
        assert (ours != expected).mean() < 0.002
        assert (np.abs(ours - wanted) <= 0.5 * step + 1e-6).all()
    else:
        assert kind == "F32"
        assert np.abs(ours - expected).max() < 1e-6
        assert np.abs(ours - wanted).max() < 1e-6
    assert np.abs(expected - tensor(made.base, name)).max() > 0.05  # the adapters do something


@pytest.mark.usefixtures("piece")
def test_what_survives_is_what_the_two_tensors_say() -> None:
    made = golden()
    for name, kind in (("blk.0.ffn_up.weight", "Q4_0"), ("blk.0.ffn_gate_exps.weight", "F16")):
        stored = blocks(made, name, kind)
        base = tensor(made.base, name).astype(np.float64)
        wanted, change = exact(made, name) - base, stored - base
        survival = made.survival[name]
        assert survival.kept == pytest.approx((wanted * change).sum() / (wanted**2).sum(), rel=1e-4)
        cosine = (wanted * change).sum() / np.sqrt((wanted**2).sum() * (change**2).sum())
        assert survival.cosine == pytest.approx(cosine, rel=1e-4)
    assert made.survival["blk.0.ffn_up.weight"].cosine < 0.999 < made.survival["blk.0.ffn_gate_exps.weight"].cosine


def test_a_change_that_rounding_swallows_is_seen() -> None:
    base = golden().base
    kept = {}
    for scale in (0.75, 1e-5):
        made = plan(base, [(read_header(GOLDEN / "first.gguf"), scale)])
        blocks(made, "blk.0.ffn_up.weight", "Q8_0")
        kept[scale] = made.survival["blk.0.ffn_up.weight"].kept
    assert kept[0.75] == pytest.approx(1, abs=0.01)
    assert kept[1e-5] < 0.1
    assert made.least_kept() == ("blk.0.ffn_up.weight", made.survival["blk.0.ffn_up.weight"])


def test_overall_weighs_tensors_by_their_change() -> None:
    made = golden()
    made.survival["a"], made.survival["b"] = Survival(9, 9, 9), Survival(1, 4, 0.5)
    assert (made.overall().kept, made.overall().stored) == (0.95, 13)
    assert made.least_kept()[0] == "b"


def test_survival_of_nothing() -> None:
    assert (Survival().kept, Survival().cosine) == (1, 1)
    assert Survival(wanted=4).cosine == 0


def test_a_finished_file_is_measured_like_what_is_written() -> None:
    made, stored = golden(), read_header(GOLDEN / "merged.gguf")
    blocks(made, "blk.0.attn_q.weight", "F16")
    written = made.survival.pop("blk.0.attn_q.weight")
    measure(made, "blk.0.attn_q.weight", stored)
    assert made.survival["blk.0.attn_q.weight"].kept == pytest.approx(written.kept, rel=1e-5)
    measure(made, "blk.0.attn_q.weight", made.base)
    assert made.survival["blk.0.attn_q.weight"].kept == 0


def test_merged_adds_each_adapter() -> None:
    base, a, b = (
        np.random.default_rng(i).normal(size=s).astype(np.float32) for i, s in enumerate([(6, 8), (2, 8), (6, 2)])
    )
    assert merged(base, []) is base
    both = merged(base, [(a, b, 0.5), (a, b, 2.0)])
    assert np.abs(both - (base + 2.5 * b @ a)).max() < 1e-5


def test_importance_reaches_each_expert() -> None:
    made, seen = golden(), []

    def quantizer(values: np.ndarray, kind: str, importance: np.ndarray | None) -> bytes:
        assert importance is not None
        seen.append(importance[0])
        return quantize_chunk(values, kind, importance)

    importance = np.arange(1, 193, dtype=np.float32).reshape(3, 64)
    b"".join(merged_blocks(made, "blk.0.ffn_gate_exps.weight", "Q4_0", quantizer, importance))
    assert seen == [1, 65, 129]


# Adapters that do not fit


def adapter(path: Path, tensors: dict[str, np.ndarray], **metadata: str | float | None) -> GGUFFile:
    facts = {"general_type": "adapter", "adapter_type": "lora", "adapter_lora_alpha": 4.0} | metadata
    writer = gguf.GGUFWriter(path, str(facts.pop("architecture", "llama")))
    for key, value in facts.items():
        if isinstance(value, str):
            writer.add_string(key.replace("_", "."), value)
        elif value is not None:
            writer.add_float32(key.replace("_", "."), value)
    for name, values in tensors.items():
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_header(path)


def pair(name: str, a: tuple[int, ...], b: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {f"{name}.lora_a": np.ones(a), f"{name}.lora_b": np.ones(b)}


Q = "blk.0.attn_q.weight"


@pytest.mark.parametrize(
    "tensors, words",
    [
        (pair(Q, (2, 63), (64, 2)), r"attn_q\.weight\.lora_a .*shape \(2, 63\).*has \(64, 64\).*must be \(2, 64\)"),
        (pair(Q, (2, 64), (65, 2)), r"attn_q\.weight\.lora_b .*shape \(65, 2\).*must be \(64, 2\)"),
        (pair("blk.9.attn_q.weight", (2, 64), (64, 2)), r"blk\.9\.attn_q\.weight .*does not have"),
        (pair("blk.0.attn_norm.weight", (2, 64), (64, 2)), "not a matrix"),
        (pair("token_embd.weight", (95, 2), (64, 2)), r"token_embd.*must be \(96, 2\)"),
        (pair("blk.0.ffn_gate_exps.weight", (2, 2, 64), (2, 32, 2)), r"must be \(3, 2, 64\)"),
    ],
)
def test_shapes_that_do_not_fit_are_named(tmp_path: Path, tensors: dict[str, np.ndarray], words: str) -> None:
    file = adapter(tmp_path / "a.gguf", tensors)
    with pytest.raises(AdapterMismatchError, match=words):
        plan(read_header(GOLDEN / "base.gguf"), [(file, 1.0)])


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    file = adapter(tmp_path / "a.gguf", pair(Q, (2, 64), (64, 2)), architecture="qwen3")
    with pytest.raises(AdapterMismatchError, match=r"for qwen3 models; base\.gguf is a llama model"):
        plan(read_header(GOLDEN / "base.gguf"), [(file, 1.0)])


def test_what_is_no_lora_is_refused(tmp_path: Path) -> None:
    base = read_header(GOLDEN / "base.gguf")
    with pytest.raises(AdapterError, match="not a LoRA adapter"):
        plan(base, [(base, 1.0)])
    norm = adapter(tmp_path / "n.gguf", {**pair(Q, (2, 64), (64, 2)), "blk.0.attn_norm.weight": np.ones(64)})
    with pytest.raises(AdapterError, match="not a LoRA matrix"):
        plan(base, [(norm, 1.0)])
    endless = adapter(tmp_path / "e.gguf", pair(Q, (2, 64), (64, 2)), adapter_lora_alpha=float("nan"))
    with pytest.raises(AdapterError, match="alpha nan"):
        plan(base, [(endless, 1.0)])
    broken = pair(Q, (2, 64), (64, 2))
    broken[f"{Q}.lora_b"][3, 1] = np.inf
    made = plan(base, [(adapter(tmp_path / "b.gguf", broken), 1.0)])
    with pytest.raises(AdapterError, match="not finite"):
        blocks(made, Q, "F16")


def test_changes_that_are_zero_are_left_out(tmp_path: Path) -> None:
    base = read_header(GOLDEN / "base.gguf")
    tensors = {**pair(Q, (2, 64), (64, 2)), **pair("output.weight", (2, 64), (96, 2))}
    tensors["output.weight.lora_b"][:] = 0
    file = adapter(tmp_path / "a.gguf", tensors)
    assert list(plan(base, [(file, 1.0)]).changes) == [Q]
    assert not plan(base, [(file, 0.0)]).changes


@pytest.mark.parametrize("alpha, factor", [(None, 1.0), (0.0, 1.0), (6.0, 3.0)])
def test_alpha_counts_as_in_llama_cpp(tmp_path: Path, alpha: float | None, factor: float) -> None:
    base = read_header(GOLDEN / "base.gguf")
    file = adapter(tmp_path / "a.gguf", pair(Q, (2, 64), (64, 2)), adapter_lora_alpha=alpha)
    made = plan(base, [(file, 0.5)])
    assert np.abs(blocks(made, Q, "F32") - tensor(base, Q) - 0.5 * factor * 2).max() < 1e-5


MEASURE = """
import resource, sys
from pathlib import Path
from localllm.engine.quantize import quantize_chunk
from localllm.weights.gguf import read_header
from localllm.weights.merge import merged_blocks, plan
base, adapter = (read_header(Path(p)) for p in sys.argv[1:])
made = plan(base, [(adapter, 1.0)])
for small in (True, False):
    for piece in merged_blocks(made, "output.weight" if small else "token_embd.weight", "Q8_0", quantize_chunk):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if small:
        before = peak
print(peak - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units")
def test_memory_does_not_grow_with_the_tensor(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "base.gguf", "llama")
    writer.add_tensor("output.weight", np.zeros((2048, 1024), np.float32))
    shape = (65536, 1024)  # 256 MiB as float32; it is stored as F16, whose pages come on top and can be dropped
    writer.add_tensor("token_embd.weight", np.zeros(shape, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensors = {**pair("output.weight", (2, 1024), (2048, 2)), **pair("token_embd.weight", (65536, 2), (1024, 2))}
    adapter(tmp_path / "a.gguf", tensors)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "base.gguf"), str(tmp_path / "a.gguf")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    mapped = 2 * 65536 * 1024 / 1024
    assert int(run.stdout) < mapped + 48 * 1024  # KiB
