"""Is an MLX folder the model of a GGUF? Its numbers are compared, and then a sample of all weights.

An adapter that is trained on the one and used with the other is worth something only if both hold the same weights, but
for their roundings. Quantization to b bits, scales included, moves weights by about 1.9 / (2**b - 1) of their size (the
relative RMS: 0.09 for 4-bit groups of 64, measured on normal values with mx.quantize); those of another model lie 1.4
apart. Norms and biases are rounded to 16 bits at most (0.002), so in them a fine-tune of the same model may show too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import InvalidModelError
from localllm.weights.affine import Floats
from localllm.weights.architectures import architecture_of
from localllm.weights.config import model_config
from localllm.weights.ggml import BY_NAME
from localllm.weights.gguf import GGUFFile
from localllm.weights.mlx_folder import ModelFolder
from localllm.weights.mlx_parameters import PAIR_HINT, Parameter
from localllm.weights.quant import dequantize, read_blocks

ROWS = 16
"""Rows of each matrix that are compared."""
VECTOR, MATRIX, MARGIN, MOST = 0.01, 0.03, 2.5, 0.9
"""Allowed relative RMS: of vectors; of matrices without quantization, plus so many times what that does to normal
values; and at all."""
_KINDS = {"mistral": "llama", "gemma3": "gemma3_text"}
"""model_type of config.json -> mlx-lm's class, where it is another."""
_NUMBERS = (
    "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
    "rms_norm_eps", "rope_theta", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
    "attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling", "attn_logit_softcapping",
    "final_logit_softcapping", "query_pre_attn_scalar",
)  # fmt: skip


def check_config(folder: ModelFolder, file: GGUFFile) -> None:
    """Compare what both say of the model; what the folder leaves out is left to the shapes of its tensors.

    Raises InvalidModelError with the first difference.
    """
    ours, theirs = model_config(file), _said(folder)
    for key in ("model_type", *_NUMBERS, "tie_word_embeddings"):
        if key not in ours or theirs.get(key) is None or _same(theirs[key], ours[key]):
            continue
        raise InvalidModelError(
            f"{folder.path} is not the model of {file.path.name}: its {key} is {theirs[key]!s:.40}, not {ours[key]}.",
            PAIR_HINT,
        )


def check_weights(folder: ModelFolder, file: GGUFFile, parameters: Mapping[str, Parameter]) -> float:
    """Compare some rows of every matrix, and vectors whole; returns the relative RMS difference of all matrices.

    Raises InvalidModelError naming the first tensor that differs by more than its roundings explain.
    """
    rng, wrong, size = np.random.default_rng(0), 0.0, 0.0
    for name, parameter in sorted(parameters.items()):
        ours, theirs = _sample(file, name, parameter, rng)
        off, of = float(np.square(theirs - ours).sum()), float(np.square(ours).sum())
        difference = math.sqrt(off / of) if of else float(off > 0)
        if not difference <= (allowed := _allowed(file, parameter)):  # not `>`: it may not be a number
            raise InvalidModelError(
                f"{folder.path} does not hold the weights of {file.path.name}: {name} differs by {difference:.0%} "
                f"(relative RMS), and their rounding explains {allowed:.0%} at most.",
                PAIR_HINT,
            )
        if len(parameter.slot.shape) > 1:
            wrong, size = wrong + off, size + of
    return math.sqrt(wrong / size) if size else 0.0


def _said(folder: ModelFolder) -> dict[str, Any]:
    """The folder's configuration, in mlx-lm's words where others have other ones."""
    config = dict(folder.config)
    positions = config.get("rope_parameters")
    if config.get("rope_theta") is None and isinstance(positions, dict):
        config["rope_theta"] = positions.get("rope_theta")
    config["model_type"] = _KINDS.get(str(config.get("model_type")), config.get("model_type"))
    if not isinstance(config.get("tie_word_embeddings"), bool):
        config["tie_word_embeddings"] = "lm_head.weight" not in folder.tensors
    return config


def _same(theirs: object, ours: object) -> bool:
    """Whether two settings are equal, numbers but for the rounding to float32 that GGUF's metadata have."""
    if isinstance(ours, bool | str) or isinstance(theirs, bool):
        return theirs == ours
    if not isinstance(theirs, int | float) or not isinstance(ours, int | float):
        return False
    return abs(theirs) < 1e18 and math.isclose(theirs, ours, rel_tol=1e-5)


def _sample(file: GGUFFile, name: str, parameter: Parameter, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """The same rows from the GGUF and from the folder; a vector is one row."""
    count = math.prod(parameter.slot.shape[:-1])
    rows = np.sort(rng.choice(count, min(ROWS, count), replace=False))
    ours = _gguf_rows(file, parameter, rows)
    if name.endswith("norm.weight"):
        ours = ours - np.float32(architecture_of(file).norm_offset)
    return ours, parameter.rows(rows)


def _gguf_rows(file: GGUFFile, parameter: Parameter, rows: NDArray[np.intp]) -> Floats:
    """Rows of a parameter, by their numbers in MLX's order, as float32."""
    slot = parameter.slot
    info = file.tensors[slot.tensor]
    blocks = read_blocks(file, info)
    if len(slot.shape) == 1:
        values = dequantize(blocks, info.type, info.shape)[slot.rows]
        return values[None] if slot.order is None else values[np.argsort(slot.order)][None]
    places = slot.start + (rows if slot.order is None else np.argsort(slot.order)[rows])
    columns = info.shape[-1]
    per_row = columns // BY_NAME[info.type].weights
    chosen = blocks.reshape(-1, per_row, blocks.shape[-1])[places]
    return dequantize(chosen.reshape(-1, blocks.shape[-1]), info.type, (len(rows), columns))


def _allowed(file: GGUFFile, parameter: Parameter) -> float:
    """The relative RMS that the roundings of both sides explain."""
    if len(parameter.slot.shape) == 1:
        return VECTOR
    info = file.tensors[parameter.slot.tensor]
    ours = 8 * info.nbytes / math.prod(info.shape)
    both = math.hypot(*(1.9 / (2 ** min(bits, 32) - 1) for bits in (ours, parameter.bits_per_weight)))
    return min(MOST, MATRIX + MARGIN * both)
