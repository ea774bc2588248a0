"""The trained model as GGUF: float16 first, then 4 bits with the parts that copy kept at 8.

Only Q4_K, Q8_0 and float32 occur in the file: the three are repacked bit for bit for training.
"""

import ctypes
import hashlib
import json
import os
from pathlib import Path

import gguf
import numpy as np
from tokenizers import Tokenizer

from .model import Guide
from .settings import CHAT_TEMPLATE, SPECIALS, Shape

TITLE = "localllm guide"
DESCRIPTION = "A tiny model that reads: it gives the main sentence of a short text and answers questions from it."
PART = 480
"""Tokens of text that the model reads well at once: about the longest that it is trained on."""
KEEP = (r"token_embd\.weight", r"blk\.[01]\.attn_(q|k|v|output)\.weight")
"""Tensors at 8 bits: the embedding, and the two layers of attention that hold the copying circuit."""
_NAMES = {
    "attention_norm": "attn_norm", "attention.q": "attn_q", "attention.k": "attn_k", "attention.v": "attn_v",
    "attention.o": "attn_output",
    "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Row order of q and k for llama.cpp: its rotary pairs are neighbours, ours are half a head apart."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, 2, half, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def tensors(model: Guide) -> dict[str, np.ndarray]:
    """Every tensor under its GGUF name: norms in float32, the rest in float16."""
    found: dict[str, np.ndarray] = {}
    for name, parameter in model.state_dict().items():
        value = parameter.float().numpy()
        stem = name.removesuffix(".weight")
        if stem.startswith("layers."):
            _, layer, part = stem.split(".", 2)
            if part in ("attention.q", "attention.k"):
                value = permute(value, model.shape.heads)
            target = f"blk.{layer}.{_NAMES[part]}.weight"
        else:
            target = {"embedding": "token_embd.weight", "norm": "output_norm.weight"}[stem]
        found[target] = value if value.ndim == 1 else value.astype(np.float16)
    return found


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([text for text, _ in vocab])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if i < len(SPECIALS) else normal for i in range(len(vocab))])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_metadata(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_name(TITLE)
    writer.add_description(DESCRIPTION)
    writer.add_license("MIT")
    writer.add_languages(["en"])
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head)
    writer.add_vocab_size(shape.vocab)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def write_f16(model: Guide, tokenizer: Tokenizer, path: Path) -> None:
    """The model unquantized."""
    writer = gguf.GGUFWriter(path, "llama")
    _add_metadata(writer, model.shape)
    _add_tokenizer(writer, tokenizer)
    for name, value in tensors(model).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize(source: Path, target: Path) -> None:
    """Q4_K throughout but for the parts in KEEP, by llama.cpp."""
    import llama_cpp

    overrides = (llama_cpp.llama_model_tensor_override * (len(KEEP) + 2))()
    for i, pattern in enumerate(KEEP):
        overrides[i].pattern, overrides[i].type = pattern.encode(), gguf.GGMLQuantizationType.Q8_0
    overrides[len(KEEP)].pattern, overrides[len(KEEP)].type = rb"blk\..*", gguf.GGMLQuantizationType.Q4_K
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = gguf.LlamaFileType.MOSTLY_Q4_K_M
    settings.token_embedding_type = gguf.GGMLQuantizationType.Q8_0
    settings.nthread = os.cpu_count() or 1
    settings.tt_overrides = ctypes.cast(overrides, ctypes.POINTER(llama_cpp.llama_model_tensor_override))
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), settings):
        raise SystemExit(f"llama.cpp could not quantize {source}")


def card(model: Guide, path: Path) -> str:
    """The model card of a finished file, as TOML."""
    facts = {
        "name": "guide",
        "title": TITLE,
        "description": DESCRIPTION,
        "file": path.name,
        "license": "MIT",
        "languages": ["en"],
        "context": model.shape.context,
        "parameters": sum(p.numel() for p in model.parameters()),
        "quantization": "Q4_K, embedding and attention of layers 0 and 1 in Q8_0",
        "chunk_tokens": PART,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    # A JSON string, number or list of strings is the same in TOML.
    top = "".join(f"{key} = {json.dumps(value)}\n" for key, value in facts.items())
    return top + "\n[sampling]\ntemperature = 0.0\n"  # a reader that only copies has nothing to gain from chance


def write(model: Guide, tokenizer: Tokenizer, target: Path) -> None:
    """TARGET with its card beside it, and TARGET-f16."""
    plain = target.with_name(f"{target.stem}-f16.gguf")
    write_f16(model, tokenizer, plain)
    quantize(plain, target)
    target.with_suffix(".toml").write_text(card(model, target), encoding="utf-8")
    print(f"{target}  {target.stat().st_size} bytes")
