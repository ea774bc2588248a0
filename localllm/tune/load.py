"""A GGUF file as a model of mlx-lm, from its metadata and blocks alone."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.nn.layers.quantized import quantize
from mlx.utils import tree_flatten

from localllm.errors import InvalidModelError
from localllm.tune.device import Residence
from localllm.tune.follow import follow_llama_cpp
from localllm.tune.streamed import halved, stream
from localllm.weights.architectures import architecture_of
from localllm.weights.config import model_config
from localllm.weights.convert import Other, becomes, convert_blocks
from localllm.weights.gguf import GGUFFile
from localllm.weights.names import Slot, gguf_name, tensor_names
from localllm.weights.quant import GROUP_SIZE, Affine, dequantize, is_affine, read_blocks
from localllm.weights.rope import usual_ctx


def load_model(
    file: GGUFFile,
    residence: Residence,
    dtype: mx.Dtype = mx.float32,
    n_ctx: int | None = None,
    other: Other = "16bit",
) -> Any:
    """The file's model with its weights, frozen; its positions are those of a context of `n_ctx` tokens.

    With residence "float32" every weight is dequantized to `dtype`; with "quantized" and "streamed" the blocks that MLX
    can hold stay quantized, with scales of `dtype`, and those that it cannot hold become what `other` says.
    Raises UnsupportedModelError and InvalidModelError before weights are read.
    """
    config = model_config(file)
    model = build(config)
    parameters = dict(tree_flatten(model.parameters()))
    slots = tensor_names(file, parameters)
    _check(file, parameters, slots)
    if residence != "float32":
        _quantize_modules(model, file, slots, other)
    for parameter, value in parameters.items():
        arrays = [(parameter, mx.zeros(value.shape, dtype))]  # a bias that the file does not have
        if parameter in slots:
            arrays = _read(file, slots[parameter], parameter, dtype, other if residence != "float32" else None)
            if residence == "streamed" and len(arrays) == 1:
                arrays = [(parameter, halved(arrays[0][1], file.tensors[slots[parameter].tensor].type))]
        mx.eval([array for _, array in arrays])  # one tensor at a time, so that its words can be let go
        model.load_weights(arrays, strict=False)
    if residence == "streamed":
        stream(model)
    follow_llama_cpp(model, file, n_ctx or usual_ctx(file))
    model.freeze()
    model.eval()
    return model


def build(config: dict[str, Any]) -> Any:
    """The model of a configuration, its weights still random."""
    module = _models_module(config["model_type"])
    model = module.Model(module.ModelArgs.from_dict(config))
    if config["tie_word_embeddings"] and "lm_head" in model:  # a class that only learns it from the weights
        model.sanitize({})
    return model


def _models_module(model_type: str) -> Any:
    """mlx_lm.models.<model_type> without mlx_lm's own __init__, which imports transformers (2 s, 200 MB)."""
    if "mlx_lm" in sys.modules:
        return importlib.import_module(f"mlx_lm.models.{model_type}")
    spec = importlib.util.find_spec("mlx_lm")
    assert spec is not None
    sys.modules["mlx_lm"] = importlib.util.module_from_spec(spec)  # a package that knows its path and was not run
    try:
        return importlib.import_module(f"mlx_lm.models.{model_type}")
    finally:
        del sys.modules["mlx_lm"]


def _check(file: GGUFFile, parameters: dict[str, Any], slots: dict[str, Slot]) -> None:
    """Every parameter has its tensor, of the right shape. Raises InvalidModelError naming both."""
    zero = architecture_of(file).missing_bias_is_zero
    for parameter, value in parameters.items():
        if parameter not in slots:
            if zero and parameter.endswith(".bias"):
                continue
            raise InvalidModelError(f"{file.path} lacks the tensor {gguf_name(file, parameter)}.")
        slot, shape = slots[parameter], tuple(value.shape)
        whole = file.tensors[slot.tensor].shape
        if slot.shape != shape or slot.rows.stop > whole[max(0, len(whole) - 2)]:
            raise InvalidModelError(f"{file.path}: {slot.tensor} has the shape {whole}, which does not make {shape}.")


def _quantize_modules(model: Any, file: GGUFFile, slots: dict[str, Slot], other: Other) -> None:
    """Replace the modules whose weights will be affine groups by quantized ones of the same bits."""

    def choose(path: str, module: Module) -> bool | dict[str, int]:
        slot = slots.get(f"{path}.weight")
        if slot is None or not hasattr(module, "to_quantized"):
            return False
        target = becomes(file.tensors[slot.tensor].type, other)
        return {"group_size": GROUP_SIZE, "bits": target.bits} if target.form == "affine" else False

    quantize(model, class_predicate=choose)


def _read(
    file: GGUFFile, slot: Slot, parameter: str, dtype: mx.Dtype, other: Other | None
) -> list[tuple[str, mx.array]]:
    """The arrays that a parameter is made of, with its rows in MLX's order; without `other` it is one of floats."""
    info = file.tensors[slot.tensor]
    blocks = read_blocks(file, info)
    target = becomes(info.type, other or "16bit")
    if target.form != "affine" or len(info.shape) < 2 or (other is None and not is_affine(info.type)):
        values = _rows(dequantize(blocks, info.type, info.shape), slot) - _offset(file, parameter)
        return [(parameter, mx.array(values).astype(dtype))]
    affine = convert_blocks(blocks, info, other or "16bit")
    assert isinstance(affine, Affine)
    words, scales, biases = (_rows(part, slot) for part in (affine.words, affine.scales, affine.biases))
    affine = Affine(words, scales, biases, affine.bits)
    if other is None:
        return [(parameter, _dequantized(affine).astype(dtype))]
    path = parameter.removesuffix("weight")
    numbers = {"scales": affine.scales, "biases": affine.biases}
    return [(parameter, mx.array(affine.words)), *((path + n, mx.array(v).astype(dtype)) for n, v in numbers.items())]


def _rows(values: Any, slot: Slot) -> Any:
    """The parameter's own rows of a tensor, in MLX's order."""
    axis = max(0, len(slot.shape) - 2)
    if slot.order is None and values.shape[axis] == slot.shape[axis]:
        return values
    own = values[(slice(None),) * axis + (slot.rows,)]
    return own if slot.order is None else np.take(own, np.argsort(slot.order), axis)


def _offset(file: GGUFFile, parameter: str) -> np.float32:
    """What the converter added to this parameter."""
    return np.float32(architecture_of(file).norm_offset if parameter.endswith("norm.weight") else 0.0)


def _dequantized(affine: Affine) -> mx.array:
    return mx.dequantize(
        mx.array(affine.words), mx.array(affine.scales), mx.array(affine.biases), GROUP_SIZE, affine.bits
    )
