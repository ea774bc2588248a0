#!/usr/bin/env python3
"""Measure README's table: what works on each architecture, and how closely MLX and llama.cpp agree.

    python scripts/architectures.py                  # the models of tests/oracle
    python scripts/architectures.py MODEL.gguf ...   # others

For each model, 128 tokens, mean KL(llama.cpp || MLX): on float32 copies of the file, where what is left is the
loader's; on the file itself, where llama.cpp rounds activations; the same with a random adapter on every matrix; and
of llama.cpp on the merged float32 model against MLX on base + adapter. Training is
twelve steps from the file's own blocks: the loss before and after.
"""

from __future__ import annotations

import sys
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.nn.utils import value_and_grad

from localllm.data.batches import collate
from localllm.engine.llama import LlamaEngine
from localllm.evaluate.agreement import LogProbs, kl, log_softmax
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.merging import MergeRequest, merge
from localllm.tune.load import load_model
from localllm.tune.lora import attach, attach_adapter
from localllm.tune.loss import batch_loss
from localllm.types import Example
from localllm.weights.adapter import Adapter
from localllm.weights.architectures import architecture_of
from localllm.weights.excerpt import choose_layers, write_excerpt
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.lora import write_gguf
from localllm.weights.names import EMBEDDING, OUTPUT, modules

ROOT = Path(__file__).resolve().parents[1]
TOKENS = tuple(int(t) for t in np.random.default_rng(0).integers(3, 500, 128))
STEPS = 12


@dataclass(frozen=True)
class Row:
    """What was measured on one model."""

    name: str
    families: str
    load: float
    load_file: float
    train: str
    adapter: float
    adapter_file: float
    merged: float

    def __str__(self) -> str:
        numbers = (
            f"{self.load:.0e} / {self.load_file:.0e} | {self.train} | {self.adapter:.0e} / {self.adapter_file:.0e}"
        )
        return f"| {self.name} | {self.families} | {numbers} | {self.merged:.0e} |"


def in_llama_cpp(path: Path, adapter: Path | None = None) -> LogProbs:
    """Log-probabilities after each token, with nothing rounded that need not be."""
    engine = LlamaEngine.open(path, n_ctx=len(TOKENS), n_threads=1, exact=True)
    try:
        engine.set_adapters([(adapter, 1.0)] if adapter else [])
        return log_softmax(engine.logits(TOKENS))
    finally:
        engine.close()


def in_mlx(model: Any) -> LogProbs:
    """The same of an MLX model."""
    return log_softmax(np.array(model(mx.array([TOKENS])))[0])


def random_adapter(file: GGUFFile) -> Adapter:
    """Rank 8 on every matrix that llama.cpp takes an adapter for."""
    rng, layers, slots = np.random.default_rng(1), {}, modules(file)
    for path, slot in slots.items():
        rows, columns, stack = *slot.shape[-2:], slot.shape[:-2]
        if path == EMBEDDING and OUTPUT not in slots:
            continue  # tied
        shapes = ((columns, 8), (8, rows)) if not stack else ((*stack, 8, columns), (*stack, rows, 8))
        if path == EMBEDDING:
            shapes = (rows, 8), (8, columns)
        a, b = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
        layers[path] = a * np.float32(columns**-0.5), b * np.float32(0.03)
    return Adapter(8, 8.0, layers)


def trained(file: GGUFFile) -> str:
    """The loss before and after a few steps on the file's own blocks."""
    row = Example((7, *[300, 301, 302] * 6), (False, *[True] * 18))
    model = load_model(file, "float32")
    attach(model, rank=4, alpha=8.0, seed=1, targets=architecture_of(file).trained)
    optimizer, step, losses = optim.AdamW(2e-3, bias_correction=True), value_and_grad(model, batch_loss), []
    for _ in range(STEPS):
        loss, gradients = step(model, collate([row]))
        optimizer.update(model, gradients)
        mx.eval(loss, model.trainable_parameters())
        losses.append(loss.item())
    return f"{losses[0]:.1f} → {losses[-1]:.1f}"


def measure(path: Path, work: Path) -> Row:
    """All columns of one model."""
    file, n_ctx = read_header(path), len(TOKENS)
    write_excerpt(file, work / "base.gguf", choose_layers(file, [], sys.maxsize))
    base, adapter = read_header(work / "base.gguf"), random_adapter(file)
    write_gguf(work / "adapter.gguf", adapter, base, {})
    model = load_model(file, "float32", n_ctx=n_ctx)
    plain = in_mlx(model)
    attach_adapter(model, adapter)
    tuned = in_mlx(model)
    request = MergeRequest(str(base.path), [(str(work / "adapter.gguf"), 1.0)], work / "merged.gguf", overwrite=True)
    deque(merge(Registry(Home(work / "home")), request), maxlen=0)
    return Row(
        name=path.stem,
        families=architecture_of(file).families,
        load=kl(in_llama_cpp(base.path), plain),
        load_file=kl(in_llama_cpp(path), plain),
        train=trained(file),
        adapter=kl(in_llama_cpp(base.path, work / "adapter.gguf"), tuned),
        adapter_file=kl(in_llama_cpp(path, work / "adapter.gguf"), tuned),
        merged=kl(in_llama_cpp(work / "merged.gguf"), tuned),
    )


def main() -> int:
    paths = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "tests" / "oracle").glob("*.gguf"))
    print("| model | of | load: float32 / file | train | adapter: float32 / file | merge: float32 |")
    print("|---|---|---|---|---|---|")
    for path in paths:
        with tempfile.TemporaryDirectory() as work:
            print(measure(path, Path(work)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
