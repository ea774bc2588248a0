"""The model of a GGUF with the weights of an MLX folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from localllm.errors import InvalidModelError
from localllm.tune.device import Residence
from localllm.tune.load import build, fill
from localllm.weights.architectures import architecture_of
from localllm.weights.config import model_config
from localllm.weights.gguf import GGUFFile
from localllm.weights.mlx_folder import ModelFolder, StoredTensor
from localllm.weights.mlx_parameters import Parameter, match


def load_folder(
    folder: ModelFolder, file: GGUFFile, residence: Residence, dtype: mx.Dtype = mx.float32, n_ctx: int | None = None
) -> Any:
    """The model that `file` describes, computing as llama.cpp does with it, its weights those of `folder`; frozen.

    Residences are those of `tune.load.load_model`. Raises UnsupportedModelError and InvalidModelError before weights
    are read.
    """
    model = build(model_config(file))
    return fill(model, _Folder(folder, file), file, residence, dtype, n_ctx)


class _Folder:
    """The parameters of a model as they lie in a folder (a tune.load.Source)."""

    def __init__(self, folder: ModelFolder, file: GGUFFile) -> None:
        self.folder, self.found = folder, match(folder, file)
        self.zero_biases = architecture_of(file).missing_bias_is_zero

    def check(self, parameters: Mapping[str, Any]) -> None:
        for name, value in parameters.items():
            if name not in self.found and not (self.zero_biases and name.endswith(".bias")):
                raise InvalidModelError(f"{self.folder.path} lacks the tensor {name}.")
            if name in self.found and self.found[name].slot.shape != (shape := tuple(value.shape)):
                raise InvalidModelError(f"{self.folder.path}: {name} does not make {shape}.")

    def affine(self, parameter: str) -> dict[str, int] | None:
        found = self.found.get(parameter)
        return {"group_size": found.group_size, "bits": found.bits} if found and found.bits else None

    def kind(self, parameter: str) -> str:
        return self.found[parameter].weight.dtype

    def read(self, parameter: str, quantized: bool, dtype: mx.Dtype) -> list[tuple[str, mx.array]] | None:
        found = self.found.get(parameter)
        if found is None:
            return None
        weight, *parts = (_array(part, found) for part in found.stored)
        if not parts:
            return [(parameter, weight.astype(dtype))]
        scales, biases = (part.astype(dtype if quantized else mx.float32) for part in parts)
        if not quantized:
            return [(parameter, mx.dequantize(weight, scales, biases, found.group_size, found.bits).astype(dtype))]
        path = parameter.removesuffix("weight")
        return [(parameter, weight), (f"{path}scales", scales), (f"{path}biases", biases)]


def _array(part: StoredTensor, parameter: Parameter) -> mx.array:
    """A part as it is stored, without rows for tokens that the model does not know."""
    values = part.mapped()
    if values.ndim > 1:
        values = values[: parameter.slot.shape[0]]
    array = mx.array(values)
    return array.view(mx.bfloat16) if part.dtype == "BF16" else array
