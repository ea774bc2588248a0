"""Folders as `mlx_lm.convert` writes them, made of a GGUF's weights by mlx-lm's own functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from localllm.tune.load import build, load_model
from localllm.weights.config import model_config
from localllm.weights.gguf import read_header


def write_mlx_folder(
    gguf: Path,
    folder: Path,
    *,
    bits: int | None = None,
    group_size: int = 64,
    dtype: mx.Dtype = mx.bfloat16,
    shards: int = 1,
    predicate: Callable[[str, Any], bool | dict[str, Any]] | None = None,
) -> Path:
    """The weights of a GGUF, rounded to `dtype` and then quantized to `bits` where that is given."""
    from mlx_lm import utils

    file = read_header(gguf)
    config = model_config(file)
    model = build(config)
    model.load_weights(tree_flatten(load_model(file, "float32").parameters()))
    model.set_dtype(dtype)
    if bits:
        model, config = utils.quantize_model(model, config, group_size, bits, quant_predicate=predicate)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(utils, "make_shards", lambda weights: _divided(weights, shards))
        utils.save_model(folder, model)
    utils.save_config(config, folder / "config.json")
    return folder


def _divided(weights: dict[str, Any], shards: int) -> list[dict[str, Any]]:
    names = list(weights)
    return [{name: weights[name] for name in names[i::shards]} for i in range(shards)]
