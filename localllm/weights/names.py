"""What MLX and GGUF call the same tensor, and how their row orders differ: one entry for each architecture.

An architecture is an entry in ARCHITECTURES. Names come from the gguf package's own table, which knows the Hugging Face
names that mlx-lm uses; an entry only says what differs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import InvalidModelError, UnsupportedModelError
from localllm.weights.gguf import GGUFFile
from localllm.weights.quant import dequantize, read_blocks


@dataclass(frozen=True)
class Architecture:
    """How to read one `general.architecture` as a model of mlx-lm."""

    name: str
    model_type: str
    """The module of mlx_lm.models that has the model's class."""
    permuted: Mapping[str, str]
    """Projections whose rows GGUF permutes, by the metadata key with their number of heads."""
    refused: Mapping[str, str]
    """Metadata keys that, when present and not zero, mean a variant that is not supported, and its name."""
    unused: tuple[str, ...] = ()
    """Tensors that are not parameters of the model's class."""


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(
        "llama",
        model_type="llama",
        permuted={"q_proj": "attention.head_count", "k_proj": "attention.head_count_kv"},
        refused={"expert_count": "a mixture of experts"},
        unused=("rope_freqs.weight",),
    ),
}


def architecture_of(file: GGUFFile) -> Architecture:
    """The entry for a model file. Raises UnsupportedModelError naming what is supported."""
    entry = ARCHITECTURES.get(file.architecture)
    supported = f"Fine-tuning supports: {', '.join(ARCHITECTURES)} (Llama, Mistral, SmolLM2, TinyLlama and their kin)."
    if file.kind != "model":
        raise UnsupportedModelError(f"{file.path} holds an {file.kind}, not a model.", supported)
    if entry is None:
        raise UnsupportedModelError(
            f"{file.path} has the architecture {file.architecture!r}, which cannot be fine-tuned yet.", supported
        )
    for key, variant in entry.refused.items():
        if file.metadata.get(f"{entry.name}.{key}"):
            raise UnsupportedModelError(f"{file.path} is {variant}, which cannot be fine-tuned yet.", supported)
    return entry


def model_config(file: GGUFFile) -> dict[str, Any]:
    """The configuration that mlx-lm's model class takes, from the file's metadata alone.

    Raises InvalidModelError where a number is missing and UnsupportedModelError where it is given per layer.
    """
    entry = architecture_of(file)
    hidden, heads = _integer(file, "embedding_length"), _integer(file, "attention.head_count")
    head_dim = _integer(file, "attention.key_length", hidden // max(heads, 1))
    for key in ("attention.value_length", "rope.dimension_count"):
        if _integer(file, key, head_dim) != head_dim:
            raise UnsupportedModelError(f"{file.path} has {key} other than {head_dim}, which cannot be fine-tuned yet.")
    return {
        "model_type": entry.model_type,
        "hidden_size": hidden,
        "num_hidden_layers": _integer(file, "block_count"),
        "intermediate_size": _integer(file, "feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": _integer(file, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": float(_number(file, "attention.layer_norm_rms_epsilon")),
        "max_position_embeddings": _integer(file, "context_length"),
        "vocab_size": _embeddings(file)[0],
        "rope_theta": float(_number(file, "rope.freq_base", 10000.0)),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_q.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in file.tensors,
    }


def tensor_names(file: GGUFFile, parameters: Iterable[str]) -> dict[str, str]:
    """GGUF tensor for each MLX parameter ("model.layers.0.self_attn.q_proj.weight" -> "blk.0.attn_q.weight").

    A parameter without a tensor is left out (a missing bias is zero, a tied output has no weights of its own).
    Raises UnsupportedModelError when tensors of the file are left over.
    """
    entry = architecture_of(file)
    found = {}
    for parameter in parameters:
        name = gguf_name(file, parameter)
        if name in file.tensors:
            found[parameter] = name
    if left := sorted(set(file.tensors) - set(found.values()) - set(entry.unused)):
        raise UnsupportedModelError(f"{file.path} has tensors that a {entry.name} model lacks: {', '.join(left[:5])}.")
    return found


def gguf_name(file: GGUFFile, parameter: str) -> str:
    """GGUF's name for an MLX parameter, whether or not the file has it."""
    table = _name_table(file.architecture, _integer(file, "block_count"))
    name: str | None = table.get_name(parameter, try_suffixes=(".weight", ".bias"))
    if name is None:
        raise UnsupportedModelError(f"GGUF has no name for {parameter} in a {file.architecture} model.")
    return name


def row_order(file: GGUFFile, parameter: str) -> NDArray[np.intp] | None:
    """For a parameter whose rows GGUF permutes: `order`, with gguf_rows = mlx_rows[order]; else None.

    The converter splits the rows of each head in two halves and interleaves them (llama.cpp, LlamaModel.permute).
    """
    entry = architecture_of(file)
    module = parameter.removesuffix(".weight").removesuffix(".bias")
    key = entry.permuted.get(module.rpartition(".")[2])
    if key is None:
        return None
    heads = _integer(file, key, _integer(file, "attention.head_count"))
    rows = file.tensors[gguf_name(file, module + ".weight")].shape[0]
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def rope_periods(file: GGUFFile) -> NDArray[np.float32] | None:
    """Rotary periods (head_dim / 2,) where the file scales them, else None: they are then base ** (2 i / head_dim).

    Llama 3 gives a factor for each period in the tensor rope_freqs.weight; linear scaling gives one for all (ggml's
    rope divides the angle by it). Raises UnsupportedModelError for other kinds of scaling.
    """
    kind = file.metadata.get(f"{file.architecture}.rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        raise UnsupportedModelError(f"{file.path} scales its positions by {kind!r}, which cannot be fine-tuned yet.")
    factor = float(_number(file, "rope.scaling.factor", 1.0)) if kind == "linear" else 1.0
    info = file.tensors.get("rope_freqs.weight")
    if info is None and factor == 1.0:
        return None
    config = model_config(file)
    exponents = np.arange(0, config["head_dim"], 2, dtype=np.float32) / config["head_dim"]
    periods = np.float32(config["rope_theta"]) ** exponents * np.float32(factor)
    if info is not None:
        periods = periods * dequantize(read_blocks(file, info), info.type, info.shape)
    return np.asarray(periods, np.float32)


@functools.cache
def _name_table(architecture: str, n_layers: int) -> Any:
    import gguf

    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    return gguf.get_tensor_name_map(kinds[architecture], n_layers)


def _embeddings(file: GGUFFile) -> tuple[int, ...]:
    if "token_embd.weight" not in file.tensors:
        raise InvalidModelError(f"{file.path} has no token embeddings.")
    return file.tensors["token_embd.weight"].shape


def _number(file: GGUFFile, key: str, default: float | None = None) -> int | float:
    value = file.metadata.get(f"{file.architecture}.{key}", default)
    if value is None:
        raise InvalidModelError(f"{file.path} does not say its {key}.")
    if not isinstance(value, int | float):
        raise UnsupportedModelError(f"{file.path} has a {key} for each layer, which cannot be fine-tuned yet.")
    return value


def _integer(file: GGUFFile, key: str, default: int | None = None) -> int:
    return int(_number(file, key, default))
