"""Tiny valid GGUF files, from which the damaged ones are made: models of several architectures and one adapter.

Width 32, two heads of 16, one layer or two: 4 to 80 KB each, and llama.cpp loads and runs all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

WIDTH, HEAD, HIDDEN, RANK, EXPERTS, CONTEXT = 32, 16, 64, 4, 2, 128
WORDS = ["▁the", "▁a", "▁one", "er", "in", "▁hello", "▁w", "th", "▁", "e"]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Recipe:
    """What one model has that others have not."""

    architecture: str
    quantized: str
    spm: bool = False
    fused: bool = False
    experts: bool = False
    norms: tuple[str, ...] = ()
    """One-dimensional tensors of a layer beyond its two norms, with their widths after a colon."""
    layers: int = 1
    """With more than one, what can be said of each layer is."""
    extra: tuple[tuple[str, float | int], ...] = ()
    """Keys below the architecture's name."""
    norms_first: bool = True
    """Whether attention and feed-forward begin with norms (olmo2 has them only behind)."""


RECIPES = {
    "llama": Recipe("llama", "Q4_0", spm=True, extra=(("rope.dimension_count", HEAD),)),
    "llama-bpe": Recipe("llama", "Q8_0", extra=(("rope.freq_base", 5e5), ("vocab_size", 262))),
    "llama-deep": Recipe("llama", "Q4_1", spm=True, layers=2),
    "qwen2": Recipe("qwen2", "F16", norms=("attn_q.bias:32", "attn_k.bias:16", "attn_v.bias:16")),
    "qwen3": Recipe("qwen3", "Q5_0", norms=("attn_q_norm.weight:16", "attn_k_norm.weight:16")),
    "qwen3moe": Recipe(
        "qwen3moe",
        "Q4_1",
        experts=True,
        norms=("attn_q_norm.weight:16", "attn_k_norm.weight:16"),
        extra=(("expert_count", EXPERTS), ("expert_used_count", 1), ("expert_feed_forward_length", HIDDEN)),
    ),
    "gemma2": Recipe(
        "gemma2",
        "BF16",
        spm=True,
        norms=("post_attention_norm.weight:32", "post_ffw_norm.weight:32"),
        extra=(("attention.sliding_window", 64), ("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)),
    ),
    "gemma3": Recipe(
        "gemma3",
        "Q8_0",
        spm=True,
        norms=(
            "post_attention_norm.weight:32",
            "post_ffw_norm.weight:32",
            "attn_q_norm.weight:16",
            "attn_k_norm.weight:16",
        ),
        extra=(("attention.sliding_window", 64), ("attention.key_length", HEAD), ("attention.value_length", HEAD)),
    ),
    "phi3": Recipe(
        "phi3",
        "Q5_1",
        spm=True,
        fused=True,
        extra=(("rope.dimension_count", HEAD), ("rope.scaling.original_context_length", CONTEXT)),
    ),
    "granite": Recipe(
        "granite", "F32", extra=(("logit_scale", 1.0), ("residual_scale", 0.5), ("attention.scale", 1.0))
    ),
    "olmo2": Recipe(
        "olmo2",
        "F16",
        norms_first=False,
        norms=(
            "post_attention_norm.weight:32",
            "post_ffw_norm.weight:32",
            "attn_q_norm.weight:32",
            "attn_k_norm.weight:16",
        ),
    ),
}


def write_seeds(folder: Path) -> dict[str, Path]:
    """Every seed by name, written into an existing folder; "adapter" is a LoRA for "llama"."""
    paths = {name: folder / f"{name}.gguf" for name in [*RECIPES, "adapter"]}
    for name, recipe in RECIPES.items():
        _write_model(paths[name], recipe)
    _write_adapter(paths["adapter"])
    return paths


def _write_model(path: Path, recipe: Recipe) -> None:
    writer = gguf.GGUFWriter(path, recipe.architecture)
    writer.add_type("model")
    writer.add_name("tiny")
    _add_hyperparameters(writer, recipe)
    n_vocab = _add_spm(writer) if recipe.spm else _add_bpe(writer)
    rng = np.random.default_rng(0)
    for name, shape in _shapes(recipe, n_vocab).items():
        _add_tensor(writer, name, rng.standard_normal(shape, dtype=np.float32) * 0.3, recipe.quantized)
    _finish(writer)


def _write_adapter(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    rng = np.random.default_rng(1)
    for name, rows in (("attn_q", WIDTH), ("attn_v", HEAD), ("ffn_down", WIDTH)):
        columns = HIDDEN if name == "ffn_down" else WIDTH
        for letter, shape in (("a", (RANK, columns)), ("b", (rows, RANK))):
            writer.add_tensor(f"blk.0.{name}.weight.lora_{letter}", rng.standard_normal(shape, dtype=np.float32) * 0.1)
    _finish(writer)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_hyperparameters(writer: gguf.GGUFWriter, recipe: Recipe) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(recipe.layers)
    each = recipe.layers > 1
    writer.add_feed_forward_length([HIDDEN] * recipe.layers if each else HIDDEN)
    writer.add_head_count([WIDTH // HEAD] * recipe.layers if each else WIDTH // HEAD)
    writer.add_head_count_kv([1] * recipe.layers if each else 1)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in recipe.extra:
        add = writer.add_uint32 if isinstance(value, int) else writer.add_float32
        add(f"{recipe.architecture}.{key}", value)


def _add_spm(writer: gguf.GGUFWriter) -> int:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    kinds = [2, 3, 3, *[6] * 256, *[1] * len(WORDS)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 259 + [-1.0 - i for i in range(len(WORDS))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(True)
    return len(tokens)


def _add_bpe(writer: gguf.GGUFWriter) -> int:
    tokens = ["<|endoftext|>", "<|im_end|>", *_byte_letters(), "th", "the", "Ġt", "in"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * 260])
    writer.add_token_merges(["t h", "th e", "Ġ t", "i n"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}")
    return len(tokens)


def _byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in GPT-2's vocabulary: printable ones for themselves."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def _shapes(recipe: Recipe, n_vocab: int) -> Shapes:
    layer: Shapes = {"attn_output.weight": (WIDTH, WIDTH)}
    if recipe.norms_first:
        layer |= {"attn_norm.weight": (WIDTH,), "ffn_norm.weight": (WIDTH,)}
    if recipe.fused:
        layer |= {"attn_qkv.weight": (2 * WIDTH, WIDTH), "ffn_up.weight": (2 * HIDDEN, WIDTH)}
    else:
        layer |= {"attn_q.weight": (WIDTH, WIDTH), "attn_k.weight": (HEAD, WIDTH), "attn_v.weight": (HEAD, WIDTH)}
    up, down = (HIDDEN, WIDTH), (WIDTH, HIDDEN)
    if recipe.experts:
        layer |= {"ffn_gate_inp.weight": (EXPERTS, WIDTH), "ffn_down_exps.weight": (EXPERTS, *down)}
        layer |= {"ffn_gate_exps.weight": (EXPERTS, *up), "ffn_up_exps.weight": (EXPERTS, *up)}
    else:
        layer |= {"ffn_down.weight": down} | ({} if recipe.fused else {"ffn_gate.weight": up, "ffn_up.weight": up})
    for entry in recipe.norms:
        name, width = entry.split(":")
        layer[name] = (int(width),)
    shapes: Shapes = {"token_embd.weight": (n_vocab, WIDTH), "output_norm.weight": (WIDTH,)}
    if recipe.architecture == "olmo2":  # it does not tie the two
        shapes["output.weight"] = (n_vocab, WIDTH)
    return shapes | {f"blk.{i}.{name}": shape for i in range(recipe.layers) for name, shape in layer.items()}


def _add_tensor(writer: gguf.GGUFWriter, name: str, values: np.ndarray, quantized: str) -> None:
    if values.ndim == 1 or name.endswith("ffn_gate_inp.weight"):
        writer.add_tensor(name, values)
        return
    kind = gguf.GGMLQuantizationType[quantized]
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
