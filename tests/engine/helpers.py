"""Short ways to what the engine's tests need."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from localllm.engine.base import Engine, Finished, Request, TextDelta, stream
from localllm.engine.llama import LlamaEngine
from localllm.types import Sampling


def answer(engine: Engine, prompt: str, sampling: Sampling | None = None) -> tuple[str, Finished]:
    """The text that follows `prompt`, and how it ended."""
    tokens = engine.tokenize(prompt)
    text = ""
    for event in stream(engine, Request(tuple(tokens), sampling or Sampling(max_tokens=16))):
        if isinstance(event, TextDelta):
            text += event.text
        if isinstance(event, Finished):
            finished = event
    return text, finished


def never_ending(engine: LlamaEngine) -> tuple[tuple[int, float], ...]:
    """A logit bias that bars every token that ends an answer."""
    return tuple((t, float("-inf")) for t in range(engine.info.n_vocab) if engine.vocab.is_end(t))


def write_adapter(
    path: Path,
    shapes: dict[str, tuple[int, int]],
    rank: int = 4,
    std: float = 0.3,
    architecture: str = "llama",
    base_sha256: str = "",
) -> Path:
    """A random LoRA over tensors of the given (out, in) shapes."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    if base_sha256:
        writer.add_string("localllm.base.sha256", base_sha256)
    for name, (n_out, n_in) in shapes.items():
        writer.add_tensor(f"{name}.lora_a", random.normal(0, std, (rank, n_in)).astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", random.normal(0, std, (n_out, rank)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
