#!/usr/bin/env python3
"""Make tests/weights/merge/: a tiny GGUF, two LoRAs for it, and what llama.cpp's llama-export-lora makes of them.

    python scripts/make_merge_golden.py --bin DIR     # DIR has llama.cpp's llama-export-lora

llama-export-lora writes every tensor that a LoRA changes as F16 (F32 where it was that) and copies the others. Both
LoRAs change the same tensors, which it insists on, with ranks that differ from tensor to tensor and between the two.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import gguf
import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "tests/weights/merge"
SCALES = (0.75, -1.25)
BASE = {  # name: shape (slowest first), type
    "token_embd.weight": ((96, 64), "F16"),
    "blk.0.attn_norm.weight": ((64,), "F32"),
    "blk.0.attn_q.weight": ((64, 64), "F16"),
    "blk.0.attn_k.weight": ((32, 64), "Q4_0"),
    "blk.0.attn_output.weight": ((64, 64), "BF16"),
    "blk.0.ffn_up.weight": ((160, 64), "Q8_0"),
    "blk.0.ffn_down.weight": ((64, 160), "F32"),
    "blk.0.ffn_gate_exps.weight": ((3, 32, 64), "F16"),
    "output.weight": ((96, 64), "F16"),
}
CHANGED = [name for name in BASE if "norm" not in name and "attn_k" not in name]


def write(path: Path, tensors: dict[str, tuple[np.ndarray, str]], metadata: dict[str, str | float]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        (writer.add_string if isinstance(value, str) else writer.add_float32)(key, value)
    for name, (values, kind) in tensors.items():
        number = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(values.astype(np.float32), number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def adapter(random: np.random.Generator, ranks: list[int], kind: str) -> dict[str, tuple[np.ndarray, str]]:
    """Random factors; those of the embedding lie the other way round (build_inp_embd in llama-graph.cpp)."""
    tensors = {}
    for name, rank in zip(CHANGED, ranks, strict=True):
        *experts, rows, columns = BASE[name][0]
        a, b = (*experts, rank, columns), (*experts, rows, rank)
        if name == "token_embd.weight":
            a, b = (rows, rank), (columns, rank)
        tensors[f"{name}.lora_a"] = (random.normal(0, 0.1, a), kind)
        tensors[f"{name}.lora_b"] = (random.normal(0, 0.1, b), kind)
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True, help="folder of llama-export-lora")
    program = parser.parse_args().bin.resolve() / "llama-export-lora"
    FOLDER.mkdir(exist_ok=True)
    random = np.random.default_rng(7)
    base = {name: (random.normal(0, 0.05, shape), kind) for name, (shape, kind) in BASE.items()}
    write(FOLDER / "base.gguf", base, {"general.name": "tiny"})
    facts = {"general.type": "adapter", "adapter.type": "lora"}
    first = adapter(random, [4, 3, 8, 2, 5, 4, 1], "F32")
    write(FOLDER / "first.gguf", first, {**facts, "adapter.lora.alpha": 16.0})
    second = adapter(random, [2, 6, 1, 7, 3, 2, 4], "F16")
    write(FOLDER / "second.gguf", second, {**facts, "adapter.lora.alpha": 5.0})
    loras = ",".join(f"{name}.gguf:{scale}" for name, scale in zip(("first", "second"), SCALES, strict=True))
    command = [program, "-m", "base.gguf", "--lora-scaled", loras, "-o", "merged.gguf", "-t", "1"]
    subprocess.run(command, cwd=FOLDER, check=True)


if __name__ == "__main__":
    main()
