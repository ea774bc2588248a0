#!/usr/bin/env python3
"""The resident memory of real processes that answer, beside what localllm.weights.inference says of them.

    python scripts/fit_inference.py                          five models of real shapes, at 2,048 and 8,192 tokens
    python scripts/fit_inference.py MODEL.gguf --ctx 4096    a model of yours

Each model is loaded in a process of its own, reads a prompt (`--prompt` tokens, or the whole context with `--fill`) and
answers with eight tokens. Measured is the kernel's VmHWM, the highest resident set: Python, the weights' pages that the
file is mapped to, llama.cpp's copies of them in another order, all of the cache (llama.cpp writes zeros into it), and
what was touched of buffers. The models have the shapes and vocabularies' sizes of real ones, and zeros for weights:
pages of a file, and what is computed from them, take the same room whatever they hold. Works on Linux.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localllm.weights.entries import NewValue, Typed, encode_entry  # noqa: E402
from localllm.weights.ggml import BY_NAME, TYPES  # noqa: E402
from localllm.weights.inference import chatting  # noqa: E402
from localllm.weights.parts import read_model  # noqa: E402

ALIGNMENT = 32
NUMBER = {block.name: number for number, block in TYPES.items()}


@dataclass(frozen=True)
class Shape:
    """A model by its numbers."""

    name: str
    architecture: str
    tokenizer: str
    """Kind of vocabulary, "gpt2" or "llama"."""
    layers: int
    width: int
    hidden: int
    heads: int
    heads_kv: int
    head: int
    vocabulary: int
    merges: int
    type: str
    """Of matrices."""
    embedding: str
    """Of the token embeddings, which are the output too."""
    wider: str = ""
    """Of values and the MLP's way down in half of the layers, as in a Q4_K_M."""


SHAPES = (
    Shape("SmolLM2-135M F16", "llama", "gpt2", 30, 576, 1536, 9, 3, 64, 49_152, 48_900, "F16", "F16"),
    Shape("Qwen2.5-0.5B Q4_0", "qwen2", "gpt2", 24, 896, 4864, 14, 2, 64, 151_936, 151_387, "Q4_0", "Q8_0"),
    Shape("Qwen3-0.6B Q8_0", "qwen3", "gpt2", 28, 1024, 3072, 16, 8, 128, 151_936, 151_387, "Q8_0", "Q8_0"),
    Shape("Gemma-3-1B Q8_0", "gemma3", "llama", 26, 1152, 6912, 4, 1, 256, 262_144, 0, "Q8_0", "Q8_0"),
    Shape("Llama-3.2-1B Q4_K_M", "llama", "gpt2", 16, 2048, 8192, 32, 8, 64, 128_256, 280_147, "Q4_K", "Q6_K", "Q6_K"),
)

CHILD = """
import json, sys
from pathlib import Path
from localllm.engine.base import Failed, Finished, Request
from localllm.engine.llama import LlamaEngine
from localllm.types import Sampling

def now():
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {line[0]: int(line[1]) * 1024 for line in lines if line[0] in ("VmHWM:", "VmRSS:")}

path, n_ctx, n_prompt, slots, exact = Path(sys.argv[1]), *map(int, sys.argv[2:6])
engine = LlamaEngine.open(path, n_ctx=n_ctx, n_slots=slots, exact=bool(exact))
loaded = now()
for slot in range(slots):
    prompt = tuple(300 + (i * 7 + slot) % 3000 for i in range(n_prompt))
    engine.submit(Request(prompt, Sampling(max_tokens=8, temperature=0.8)))
left = slots
while left:
    for event in engine.step():
        if isinstance(event, Failed):
            sys.exit(f"{event.message} {event.hint}")
        left -= isinstance(event, Finished)
print(json.dumps({"loaded": loaded["VmRSS:"], "peak": now()["VmHWM:"]}))
"""


def write(shape: Shape, path: Path) -> None:
    """A sparse file: a header, and zeros for weights."""
    tensors = dict(_tensors(shape))
    entries = [encode_entry(key, value) for key, value in _metadata(shape).items()]
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(entries)), *entries]
    offset = 0
    for name, (kind, dimensions) in tensors.items():
        raw, block = name.encode(), BY_NAME[kind]
        dims = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *reversed(dimensions))
        parts += [struct.pack("<Q", len(raw)), raw, dims, struct.pack("<IQ", NUMBER[kind], offset)]
        offset += -(-prod(dimensions) // block.weights * block.nbytes // ALIGNMENT) * ALIGNMENT
    header = b"".join(parts)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(-(-len(header) // ALIGNMENT) * ALIGNMENT + offset)


def _tensors(s: Shape) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    yield "token_embd.weight", (s.embedding, (s.vocabulary, s.width))
    yield "output_norm.weight", ("F32", (s.width,))
    query, key = s.heads * s.head, s.heads_kv * s.head
    for i in range(s.layers):
        wide = s.wider if s.wider and i % 2 else s.type
        matrices = {
            "attn_q": (s.type, (query, s.width)), "attn_k": (s.type, (key, s.width)), "attn_v": (wide, (key, s.width)),
            "attn_output": (s.type, (s.width, query)), "ffn_gate": (s.type, (s.hidden, s.width)),
            "ffn_up": (s.type, (s.hidden, s.width)), "ffn_down": (wide, (s.width, s.hidden)),
        }  # fmt: skip
        norms = ["attn_norm", "ffn_norm"]
        if s.architecture == "gemma3":
            norms += ["post_attention_norm", "post_ffw_norm"]
        yield from ((f"blk.{i}.{name}.weight", found) for name, found in matrices.items())
        yield from ((f"blk.{i}.{name}.weight", ("F32", (s.width,))) for name in norms)
        if s.architecture in ("qwen3", "gemma3"):
            yield from ((f"blk.{i}.{name}.weight", ("F32", (s.head,))) for name in ("attn_q_norm", "attn_k_norm"))
        if s.architecture == "qwen2":
            yield f"blk.{i}.attn_q.bias", ("F32", (query,))
            yield from ((f"blk.{i}.{name}.bias", ("F32", (key,))) for name in ("attn_k", "attn_v"))


def _metadata(s: Shape) -> dict[str, NewValue]:
    numbers = {
        "block_count": s.layers, "context_length": 32_768, "embedding_length": s.width, "feed_forward_length": s.hidden,
        "attention.head_count": s.heads, "attention.head_count_kv": s.heads_kv, "attention.key_length": s.head,
        "attention.value_length": s.head, "rope.dimension_count": s.head,
    }  # fmt: skip
    if s.architecture == "gemma3":
        numbers["attention.sliding_window"] = 512
    found: dict[str, NewValue] = {"general.architecture": s.architecture}
    found |= {f"{s.architecture}.{key}": Typed("u32", value) for key, value in numbers.items()}
    found[f"{s.architecture}.attention.layer_norm_rms_epsilon"] = Typed("f32", 1e-6)
    found[f"{s.architecture}.rope.freq_base"] = Typed("f32", 1e6)
    return found | _vocabulary(s)


def _vocabulary(s: Shape) -> dict[str, NewValue]:
    """Tokens of the lengths that words have, and as many merges."""
    if s.tokenizer == "llama":
        first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        kinds = [2, 3, 3, *[6] * 256]
    else:
        first, kinds = [chr(0x100 + byte) if not 33 <= byte <= 126 else chr(byte) for byte in range(256)], [1] * 256
    words = [f"\u0120w{i:06}" for i in range(s.vocabulary - len(first))]
    found: dict[str, NewValue] = {
        "tokenizer.ggml.model": s.tokenizer,
        "tokenizer.ggml.pre": "qwen2" if s.tokenizer == "gpt2" else "default",
        "tokenizer.ggml.tokens": Typed("string", first + words),
        "tokenizer.ggml.token_type": Typed("i32", kinds + [1] * len(words)),
        "tokenizer.ggml.bos_token_id": Typed("u32", 1),
        "tokenizer.ggml.eos_token_id": Typed("u32", 2),
        "tokenizer.ggml.add_bos_token": False,
    }
    if s.tokenizer == "llama":
        return found | {"tokenizer.ggml.scores": Typed("f32", [0.0] * s.vocabulary)}
    return found | {"tokenizer.ggml.merges": Typed("string", [f"\u0120w{i:05} {i % 1000:03}" for i in range(s.merges)])}


def measure(model: Path, n_ctx: int, prompt: int, slots: int, exact: bool) -> dict[str, int]:
    """Bytes after loading, and at the peak."""
    command = [sys.executable, "-c", CHILD, str(model), *map(str, (n_ctx, prompt, slots, int(exact)))]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(said.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--ctx", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--prompt", type=int, default=600, help="tokens that are read: more than one batch")
    parser.add_argument("--fill", action="store_true", help="read as many as the context holds")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--only", default="", help="of the shapes made here, those with this in their name")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.json:
        print("| model | context | estimated MB | measured MB | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for shape in [shape for shape in SHAPES if not args.models and args.only in shape.name]:
            path = Path(folder) / "model.gguf"
            write(shape, path)
            _rows(shape.name, path, args)
        for path in args.models:
            _rows(f"{path.parent.name}/{path.name}", path, args)


def _rows(name: str, path: Path, args: argparse.Namespace) -> None:
    for n_ctx in args.ctx:
        prompt = n_ctx - 16 if args.fill else min(args.prompt, n_ctx - 16)
        measured = measure(path, n_ctx, prompt, args.slots, args.exact)
        estimate = chatting(read_model(path), n_ctx, args.slots, exact=args.exact)
        expected, peak = estimate.total, measured["peak"]
        if args.json:
            print(json.dumps({"model": name, "ctx": n_ctx, **measured, "estimated": expected, **estimate.parts()}))
        else:
            row = f"| {name} | {n_ctx} | {expected / 1e6:.0f} | {peak / 1e6:.0f} | {expected / peak:.3f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
