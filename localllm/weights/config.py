"""The configuration of mlx-lm's model class, from a file's metadata alone."""

from __future__ import annotations

from typing import Any

from localllm.errors import InvalidModelError, UnsupportedModelError
from localllm.weights.architectures import architecture_of
from localllm.weights.architectures.base import Architecture, head_dim, integer, number
from localllm.weights.gguf import GGUFFile


def model_config(file: GGUFFile) -> dict[str, Any]:
    """What mlx_lm.models.<model_type>.ModelArgs takes, and more: classes ignore what they do not know.

    Raises InvalidModelError where a number is missing and UnsupportedModelError for an architecture or a variant that
    is not supported.
    """
    entry = architecture_of(file)
    width = head_dim(file)
    if integer(file, "attention.value_length", width) != width:
        raise UnsupportedModelError(f"{file.path} has values of another width than keys, which cannot be fine-tuned.")
    heads = integer(file, "attention.head_count")
    common = {
        "model_type": model_type(file, entry),
        "hidden_size": integer(file, "embedding_length"),
        "num_hidden_layers": integer(file, "block_count"),
        "intermediate_size": integer(file, "feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": integer(file, "attention.head_count_kv", heads),
        "head_dim": width,
        "rms_norm_eps": float(number(file, "attention.layer_norm_rms_epsilon")),
        "max_position_embeddings": integer(file, "context_length"),
        "vocab_size": _vocabulary(file),
        "rope_theta": float(number(file, "rope.freq_base", 10000.0)),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": _has_bias(file, "attn_q", "attn_qkv"),
        "mlp_bias": _has_bias(file, "ffn_gate"),
    }
    return common | {name: fact(file) for name, fact in entry.config.items()} | _sliding(file, entry)


def model_type(file: GGUFFile, entry: Architecture) -> str:
    """The module of mlx_lm.models with the class for this file."""
    windowed = entry.sliding is not None and entry.sliding.window(file)
    return entry.windowed_type if windowed and entry.windowed_type else entry.model_type


def _sliding(file: GGUFFile, entry: Architecture) -> dict[str, Any]:
    """Which layers have a sliding window, in the two ways that mlx-lm's classes are told."""
    if entry.sliding is None or not any(layers := entry.sliding.layers(file)):
        return {}
    period = next((i + 1 for i, slides in enumerate(layers) if not slides), len(layers) + 1)
    if layers != [i % period < period - 1 for i in range(len(layers))]:
        raise UnsupportedModelError(f"{file.path} has sliding windows in no regular order, which cannot be fine-tuned.")
    types = ["sliding_attention" if slides else "full_attention" for slides in layers]
    return {"sliding_window_pattern": period, "layer_types": types}


def _has_bias(file: GGUFFile, *names: str) -> bool:
    return any(f"blk.0.{name}.bias" in file.tensors for name in names)


def _vocabulary(file: GGUFFile) -> int:
    info = file.tensors.get("token_embd.weight")
    if info is None:
        raise InvalidModelError(f"{file.path} has no token embeddings.")
    return info.shape[0]
