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
from localllm.weights.gguf import GGUFFile, TensorInfo
from localllm.weights.names import gguf_name, model_config, rope_periods, row_order, tensor_names
from localllm.weights.quant import GROUP_SIZE, Affine, dequantize, is_affine, read_blocks, repack


class Rope(Module):
    """Rotary positions with the periods that llama.cpp would use, for files that scale them."""

    def __init__(self, periods: mx.array) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._periods = periods  # (head_dim / 2,); the underscore keeps it out of the parameters

    def __call__(self, x: mx.array, offset: int = 0) -> mx.array:
        dims = 2 * self._periods.size
        return mx.fast.rope(x, dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=self._periods)


def load_model(file: GGUFFile, residence: Residence, dtype: mx.Dtype = mx.float32) -> Any:
    """The file's model with its weights, frozen.

    With residence "float32" every weight is dequantized to `dtype`; with "quantized" the blocks that MLX can hold stay
    quantized, with scales of `dtype`. Raises UnsupportedModelError and InvalidModelError before weights are read.
    """
    config = model_config(file)
    module = _models_module(config["model_type"])
    model = module.Model(module.ModelArgs.from_dict(config))
    parameters = dict(tree_flatten(model.parameters()))
    names = tensor_names(file, parameters)
    _check(file, parameters, names)
    if residence == "quantized":
        _quantize_modules(model, file, names)
    weights: list[tuple[str, mx.array]] = []
    for parameter, name in names.items():
        weights += _read(file, file.tensors[name], parameter, residence, dtype)
    model.load_weights(weights, strict=True)
    if (periods := rope_periods(file)) is not None:
        for layer in model.layers:
            layer.self_attn.rope = Rope(mx.array(periods))
    model.freeze()
    model.eval()
    mx.eval(model.parameters())
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


def _check(file: GGUFFile, parameters: dict[str, Any], names: dict[str, str]) -> None:
    """Every parameter has its tensor, of the right shape. Raises InvalidModelError naming both."""
    for parameter, value in parameters.items():
        if parameter not in names:
            raise InvalidModelError(f"{file.path} lacks the tensor {gguf_name(file, parameter)}.")
        shape = file.tensors[names[parameter]].shape
        if tuple(value.shape) != shape:
            raise InvalidModelError(f"{file.path}: {names[parameter]} has the shape {shape}, not {tuple(value.shape)}.")


def _quantize_modules(model: Any, file: GGUFFile, names: dict[str, str]) -> None:
    """Replace the modules whose blocks MLX can hold by quantized ones of the same bits."""
    bits = {"Q4_0": 4, "Q4_1": 4, "Q4_K": 4, "Q5_0": 5, "Q5_1": 5, "Q5_K": 5, "Q8_0": 8}

    def choose(path: str, _module: Module) -> bool | dict[str, int]:
        name = names.get(f"{path}.weight")
        kind = file.tensors[name].type if name else ""
        return {"group_size": GROUP_SIZE, "bits": bits[kind]} if kind in bits else False

    quantize(model, class_predicate=choose)


def _read(
    file: GGUFFile, info: TensorInfo, parameter: str, residence: Residence, dtype: mx.Dtype
) -> list[tuple[str, mx.array]]:
    """The arrays that a parameter is made of, with its rows in MLX's order."""
    order = row_order(file, parameter)
    back = None if order is None else np.argsort(order)
    blocks = read_blocks(file, info)
    if not is_affine(info.type):
        values = dequantize(blocks, info.type, info.shape)
        return [(parameter, mx.array(values if back is None else values[back]).astype(dtype))]
    affine = repack(blocks, info.type, info.shape)
    if back is not None:
        affine = affine.take_rows(back)
    if residence == "float32":
        return [(parameter, _dequantized(affine).astype(dtype))]
    path = parameter.removesuffix("weight")
    scales, biases = mx.array(affine.scales).astype(dtype), mx.array(affine.biases).astype(dtype)
    return [(parameter, mx.array(affine.words)), (f"{path}scales", scales), (f"{path}biases", biases)]


def _dequantized(affine: Affine) -> mx.array:
    values = mx.dequantize(
        mx.array(affine.words), mx.array(affine.scales), mx.array(affine.biases), GROUP_SIZE, affine.bits
    )
    mx.eval(values)  # one tensor at a time, so that its words can be let go
    return values
