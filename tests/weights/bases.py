"""Random base models, a few kB each, written here: what adapters are checked and converted against."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from localllm.weights.gguf import GGUFFile, read_header

WIDTH, HEADS, KV_HEADS, HEAD, FFN, VOCABULARY, EXPERTS, LAYERS = 32, 4, 2, 8, 48, 40, 3, 2


def base(
    path: Path, architecture: str = "llama", *, tied: bool = False, fused: bool = False, seed: int = 0
) -> GGUFFile:
    """A model's matrices and the metadata that their shapes follow from; no tokenizer, no norms."""
    query, key = HEADS * HEAD, KV_HEADS * HEAD
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (VOCABULARY, WIDTH)}
    if not tied:
        shapes["output"] = (VOCABULARY, WIDTH)
    for i in range(LAYERS):
        apart = {"attn_q": (query, WIDTH), "attn_k": (key, WIDTH), "attn_v": (key, WIDTH)}
        attention = {"attn_qkv": (query + 2 * key, WIDTH)} if fused or architecture == "phi3" else apart
        shapes |= {f"blk.{i}.{name}": shape for name, shape in (attention | _feed_forward(architecture)).items()}
        shapes[f"blk.{i}.attn_output"] = (WIDTH, query)
    random = np.random.default_rng(seed)
    tensors = {f"{name}.weight": random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    _write(path, architecture, tensors)
    return read_header(path)


def _feed_forward(architecture: str) -> dict[str, tuple[int, ...]]:
    if architecture == "phi3":
        return {"ffn_up": (2 * FFN, WIDTH), "ffn_down": (WIDTH, FFN)}
    if architecture == "qwen3moe":
        stacks: dict[str, tuple[int, ...]] = {"ffn_gate_inp": (EXPERTS, WIDTH), "ffn_down_exps": (EXPERTS, WIDTH, FFN)}
        return stacks | {f"ffn_{kind}_exps": (EXPERTS, FFN, WIDTH) for kind in ("gate", "up")}
    return {"ffn_gate": (FFN, WIDTH), "ffn_up": (FFN, WIDTH), "ffn_down": (WIDTH, FFN)}


def _write(path: Path, architecture: str, tensors: dict[str, np.ndarray]) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_context_length(64)
    writer.add_feed_forward_length(FFN)
    writer.add_layer_norm_rms_eps(1e-5)
    if architecture == "qwen3moe":
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(FFN)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def pair(shape: tuple[int, ...], rank: int, seed: int, *, embedding: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Random A and B for a matrix of that shape, in mlx-lm's orientation."""
    random = np.random.default_rng(seed)
    *experts, out, width = shape
    if experts:
        shapes: tuple[tuple[int, ...], ...] = ((*experts, rank, width), (*experts, out, rank))
    else:
        shapes = ((out, rank), (rank, width)) if embedding else ((width, rank), (rank, out))
    a, b = (random.standard_normal(s, dtype=np.float32) for s in shapes)
    return a, b


def delta(a: np.ndarray, b: np.ndarray, *, embedding: bool = False) -> np.ndarray:
    """A B as a change of the matrix, (…, out, in), without the scale, in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return b @ a if a.ndim == 3 else a @ b if embedding else (a @ b).T
