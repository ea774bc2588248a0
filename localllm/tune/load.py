"""A GGUF file as a model of mlx-lm, from its metadata and blocks alone; how any weights are put into such a model."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from typing import Any, Protocol

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


class Source(Protocol):
    """Where the weights of a model come from."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise InvalidModelError, naming it, for a parameter that is missing or has another shape."""

    def affine(self, parameter: str) -> dict[str, int] | None:
        """`group_size` and `bits` of a matrix that can stay quantized."""

    def kind(self, parameter: str) -> str:
        """The type in which one that is not quantized is stored: "F32", "BF16" or another."""

    def read(self, parameter: str, quantized: bool, dtype: mx.Dtype) -> list[tuple[str, mx.array]] | None:
        """The arrays that a parameter is made of, without `quantized` one of floats; None: it is zeros."""


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
    model = build(model_config(file))
    slots = tensor_names(file, _parameters(model))
    return fill(model, _Blocks(file, slots, other), file, residence, dtype, n_ctx)


def fill(
    model: Any, source: Source, file: GGUFFile, residence: Residence, dtype: mx.Dtype, n_ctx: int | None = None
) -> Any:
    """A model that was built for `file`, with weights from anywhere, as `load_model` returns it."""
    parameters = _parameters(model)
    source.check(parameters)
    quantized = residence != "float32"
    if quantized:
        _quantize_modules(model, source)
    for parameter, value in parameters.items():
        arrays = source.read(parameter, quantized, dtype)
        if arrays is None:
            arrays = [(parameter, mx.zeros(value.shape, dtype))]
        elif residence == "streamed" and len(arrays) == 1:
            arrays = [(parameter, halved(arrays[0][1], source.kind(parameter)))]
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
    module = models_module(config["model_type"])
    model = module.Model(module.ModelArgs.from_dict(config))
    if config["tie_word_embeddings"] and "lm_head" in model:  # a class that only learns it from the weights
        model.sanitize({})
    return model


def models_module(model_type: str) -> Any:
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


def _parameters(model: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(model.parameters()))


def _quantize_modules(model: Any, source: Source) -> None:
    """Replace the modules whose weights will be affine groups by quantized ones of the same bits."""

    def choose(path: str, module: Module) -> bool | dict[str, int]:
        return (source.affine(f"{path}.weight") or False) if hasattr(module, "to_quantized") else False

    quantize(model, class_predicate=choose)


class _Blocks:
    """The parameters of a model as they lie in its GGUF."""

    def __init__(self, file: GGUFFile, slots: dict[str, Slot], other: Other) -> None:
        self.file, self.slots, self.other = file, slots, other

    def check(self, parameters: Mapping[str, Any]) -> None:
        file, zero = self.file, architecture_of(self.file).missing_bias_is_zero
        for parameter, value in parameters.items():
            if parameter not in self.slots:
                if zero and parameter.endswith(".bias"):
                    continue
                raise InvalidModelError(f"{file.path} lacks the tensor {gguf_name(file, parameter)}.")
            slot, shape = self.slots[parameter], tuple(value.shape)
            whole = file.tensors[slot.tensor].shape
            if slot.shape != shape or slot.rows.stop > whole[max(0, len(whole) - 2)]:
                raise InvalidModelError(
                    f"{file.path}: {slot.tensor} has the shape {whole}, which does not make {shape}."
                )

    def affine(self, parameter: str) -> dict[str, int] | None:
        slot = self.slots.get(parameter)
        target = becomes(self.file.tensors[slot.tensor].type, self.other) if slot else None
        return {"group_size": GROUP_SIZE, "bits": target.bits} if target and target.form == "affine" else None

    def kind(self, parameter: str) -> str:
        return self.file.tensors[self.slots[parameter].tensor].type

    def read(self, parameter: str, quantized: bool, dtype: mx.Dtype) -> list[tuple[str, mx.array]] | None:
        if (slot := self.slots.get(parameter)) is None:
            return None
        return _read(self.file, slot, parameter, dtype, self.other if quantized else None)


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
