"""An MLX folder as a network that answers: tokens in, logits out, with keys and values kept in between.

The class of the folder's `model_type` is mlx-lm's own; no code of the folder is ever run. On a CPU weights are made
float32, because MLX's quantized products run there at 2 GFLOP/s (see device.py); on a GPU they stay as they are stored.
"""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.errors import InvalidModelError, UnsupportedModelError
from localllm.tune.device import prepare, residence
from localllm.weights.adapter import Adapter
from localllm.weights.mlx_folder import ModelFolder, StoredTensor
from localllm.weights.safetensors import Matrix

PIECE = 128
"""Tokens that are computed between two looks at whether to stop."""
_KINDS = {"mistral": "llama", "gemma3": "gemma3_text"}
"""model_type of config.json -> mlx-lm's class, where it is another."""


class Network:
    """One sequence of one model; see `open`."""

    def __init__(self, model: Any, n_vocab: int, n_params: int) -> None:
        """Use `open` instead."""
        self._model, self.n_vocab, self.n_params = model, n_vocab, n_params
        self.held = 0
        """Tokens whose keys and values are kept."""
        self._cache = self._fresh()
        self.can_trim = all(layer.is_trimmable() for layer in self._cache)

    @classmethod
    def open(cls, folder: ModelFolder, cache: Path, threads: int | None = None) -> Network:
        """Load the weights of a checked folder. Must run before anything else imports MLX (see `device.prepare`).

        `cache` is where the compiled BLAS shim is kept. Raises UnsupportedModelError for a model that mlx-lm does not
        know, InvalidModelError for weights that do not fit it.
        """
        device = prepare(cache, threads)
        model = _build(folder)
        weights = {name: _array(tensor, name) for name, tensor in folder.tensors.items()}
        weights = _sanitized(model, folder, weights)
        shapes = _shapes(model)  # after sanitize, by which some classes learn that they have no output of their own
        n_params = sum(math.prod(shape) for shape in shapes.values())
        _fill(model, folder, shapes, weights, residence(device.kind, 4 * n_params))
        if device.kind == "cpu":
            from localllm.tune.activations import vectorize_activations

            vectorize_activations(model)
        model.eval()
        n_vocab = next(shape[0] for name, shape in shapes.items() if name.endswith("embed_tokens.weight"))
        return cls(model, n_vocab, n_params)

    def forward(self, tokens: Sequence[int], rows: int, stopped: Callable[[], bool]) -> NDArray[np.float32] | None:
        """Logits [rows, n_vocab] of the last `rows` tokens of those that follow the held ones; None where `stopped`.

        What was computed before a stop is held.
        """
        import mlx.core as mx

        before = len(tokens) - rows
        for start in range(0, before, PIECE):
            if stopped():
                return None
            piece = tokens[start : min(start + PIECE, before)]
            self._model(mx.array([list(piece)]), cache=self._cache)
            mx.eval([layer.state for layer in self._cache])  # the logits of these are never computed
            self.held += len(piece)
        if rows == 0:
            return np.empty((0, self.n_vocab), np.float32)
        if stopped():
            return None
        logits = self._model(mx.array([list(tokens[before:])]), cache=self._cache)[0].astype(mx.float32)
        mx.eval(logits)
        self.held += rows
        return np.array(logits)

    def trim(self, keep: int) -> bool:
        """Hold only the first `keep` tokens; where that is not possible, hold none and return False."""
        if keep == self.held:
            return True
        if keep and all(layer.is_trimmable() for layer in self._cache):
            for layer in self._cache:
                layer.trim(self.held - keep)
            self.held = keep
            return True
        self._cache, self.held = self._fresh(), 0
        return keep == 0

    def states(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """The sum [width] of the tokens' states after the last norm; nothing is held before or afterwards.

        Raises UnsupportedModelError for a class that gives nothing but logits.
        """
        import mlx.core as mx

        inner = getattr(self._model, "model", None)
        if inner is None:
            kind = type(self._model).__module__.rpartition(".")[2]
            raise UnsupportedModelError(f"MLX has no embeddings for models of the type {kind}.", "Use a GGUF of it.")
        self.trim(0)
        total: NDArray[np.float64] = np.zeros(1)
        for start in range(0, len(tokens), PIECE):
            states = inner(mx.array([list(tokens[start : start + PIECE])]), cache=self._cache)[0].astype(mx.float32)
            total = total + np.array(states).sum(0, dtype=np.float64)
        self._cache, self.held = self._fresh(), 0
        return total

    def attach(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Use exactly these adapters, each with its strength, from the next token on; what is held stays as it is.

        Raises AdapterMismatchError for one that is for other matrices; the old ones then stay.
        """
        from localllm.tune.lora import attach_adapter, check_adapter, detach

        for adapter, _ in adapters:
            check_adapter(self._model, adapter)
        detach(self._model)
        if adapters:
            attach_adapter(self._model, _stacked(adapters))
            self._model.eval()  # the new modules are born in training

    def _fresh(self) -> list[Any]:
        from localllm.tune.load import models_module

        return list(models_module("cache").make_prompt_cache(self._model))


def _stacked(adapters: Sequence[tuple[Adapter, float]]) -> Adapter:
    """Several adapters as one that does what all of them do: their ranks side by side, their scales within B."""
    layers: dict[str, tuple[Matrix, Matrix]] = {}
    for adapter, strength in adapters:
        for path, (a, b) in adapter.layers.items():
            b = np.multiply(b, np.float32(adapter.scale * strength), dtype=np.float32)
            before = layers.get(path)
            rank_of_b = 2 if b.ndim == 3 else 0
            layers[path] = (
                (np.concatenate([before[0], a], 1), np.concatenate([before[1], b], rank_of_b)) if before else (a, b)
            )
    rank = max(a.shape[1] for a, _ in layers.values())
    return Adapter(rank, float(rank), layers)


def _build(folder: ModelFolder) -> Any:
    """The model of the folder's configuration, its weights still random."""
    from localllm.tune.load import models_module

    said = str(folder.config.get("model_type", ""))
    kind = _KINDS.get(said, said)
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,40}", kind) or not _known(kind):
        raise UnsupportedModelError(
            f"{folder.path} is a model of the type {said!r:.44}, which mlx-lm does not know.", "Use a GGUF of it."
        )
    try:
        module = models_module(kind)
        return module.Model(module.ModelArgs.from_dict({**folder.config, "model_type": kind}))
    except (TypeError, KeyError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InvalidModelError(
            f"{folder.path}: its config.json does not make a model of the type {kind} ({error!s:.120}).",
            "Copy or download the folder again, or use a GGUF.",
        ) from error


def _known(kind: str) -> bool:
    spec = importlib.util.find_spec("mlx_lm")
    return spec is not None and spec.origin is not None and (Path(spec.origin).parent / f"models/{kind}.py").is_file()


def _sanitized(model: Any, folder: ModelFolder, weights: dict[str, Any]) -> dict[str, Any]:
    """The weights by the names and in the shapes of mlx-lm's class. Raises InvalidModelError."""
    if not hasattr(model, "sanitize"):
        return weights
    try:
        return dict(model.sanitize(weights))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        what = f"{folder.path}: its tensors are not those of such a model ({error!s:.80})."
        raise InvalidModelError(what, "Copy or download the folder again.") from error


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter, by name."""
    from mlx.utils import tree_flatten

    parameters: Any = tree_flatten(model.parameters())
    return {name: tuple(value.shape) for name, value in parameters}


def _fill(
    model: Any, folder: ModelFolder, shapes: dict[str, tuple[int, ...]], weights: dict[str, Any], held: str
) -> None:
    """Put the weights into the model, held as `residence` says. Raises InvalidModelError before anything is put."""
    import mlx.core as mx
    from mlx.nn.layers.quantized import quantize

    from localllm.tune.streamed import stream

    groups = {
        name: _groups(folder, name, shape, weights) for name, shape in shapes.items() if _is_quantized(name, weights)
    }
    if held == "float32":
        for name, said in groups.items():
            path = name.removesuffix("weight")
            scales, biases = (weights.pop(f"{path}{part}").astype(mx.float32) for part in ("scales", "biases"))
            weights[name] = mx.dequantize(weights[name], scales, biases, said["group_size"], said["bits"])
            mx.eval(weights[name])
        weights = {name: value.astype(mx.float32) for name, value in weights.items()}
    else:
        quantize(
            model,
            class_predicate=lambda path, m: hasattr(m, "to_quantized") and (groups.get(f"{path}.weight") or False),
        )
        if held == "streamed":
            floats = {name for name, shape in shapes.items() if len(shape) < 2} | {
                f"{name.removesuffix('weight')}{part}" for name in groups for part in ("scales", "biases")
            }
            weights |= {name: weights[name].astype(mx.float32) for name in floats if name in weights}
    _check(folder, shapes, weights, groups if held != "float32" else {})
    model.load_weights(list(weights.items()), strict=False)
    if held == "streamed":
        stream(model)
    for _, value in weights.items():
        mx.eval(value)


def _is_quantized(name: str, weights: dict[str, Any]) -> bool:
    return name.endswith("weight") and f"{name.removesuffix('weight')}scales" in weights and name in weights


def _groups(folder: ModelFolder, name: str, shape: tuple[int, ...], weights: dict[str, Any]) -> dict[str, int]:
    """`group_size` and `bits`, from the shapes. Raises InvalidModelError where they make none."""
    path, width = name.removesuffix("weight"), shape[-1]
    words, scales = weights[name], weights[f"{path}scales"]
    biases = weights.get(f"{path}biases")
    same = biases is not None and biases.shape == scales.shape and scales.shape[:-1] == words.shape[:-1] == shape[:-1]
    found = {"group_size": width // max(1, scales.shape[-1]), "bits": words.shape[-1] * 32 // width}
    if not same or found["group_size"] not in (32, 64, 128) or found["bits"] not in (2, 3, 4, 5, 6, 8):
        raise InvalidModelError(f"{folder.path}: {name} is not in MLX's affine groups.", "Convert the model again.")
    return found


def _check(
    folder: ModelFolder, shapes: dict[str, tuple[int, ...]], weights: dict[str, Any], quantized: dict[str, Any]
) -> None:
    for name, shape in shapes.items():
        if name not in weights:
            raise InvalidModelError(f"{folder.path} lacks the tensor {name}.", "Copy or download the folder again.")
        if name not in quantized and tuple(weights[name].shape) != shape:
            found = tuple(weights[name].shape)
            raise InvalidModelError(f"{folder.path}: {name} has the shape {found}, not {shape}.", "Fetch it again.")


def _array(tensor: StoredTensor, name: str) -> Any:
    """A tensor as it is stored. Raises InvalidModelError for a type that MLX's classes do not have."""
    import mlx.core as mx

    if tensor.dtype not in ("F32", "F16", "BF16", "U32"):
        message = f"{tensor.path} stores {name} as {tensor.dtype}, which is not of MLX's formats."
        raise InvalidModelError(message, "Convert the model with `mlx_lm.convert`.")
    array = mx.array(tensor.mapped())
    return array.view(mx.bfloat16) if tensor.dtype == "BF16" else array
