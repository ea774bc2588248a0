"""Adapters, merges and looks into files for the tests of merging."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np

from localllm.engine.llama import LlamaEngine
from localllm.engine.quantize import quantize_model
from localllm.store.registry import Registry
from localllm.tasks.merging import Merged, MergeProgress, MergeRequest, MergeStarted, merge
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.quant import dequantize, read_blocks

TOKENS = list(range(5, 37))


GUIDE = ["blk.0.attn_q.weight", "blk.0.ffn_down.weight", "blk.1.attn_v.weight", "blk.1.ffn_up.weight"]


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


def importance(path: Path, name: str, columns: int) -> Path:
    values = np.where(np.arange(columns) % 2, 100, 0.01).astype("<f4").tobytes()
    path.write_bytes(struct.pack(f"<ii{len(name)}sii", 1, len(name), name.encode(), 1, columns) + values)
    return path
