"""The optimizer of a run: MLX's own, with one learning rate for A and one for B, and a state that can be saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from numpy.typing import NDArray

from localllm.tune.config import TrainConfig


class Stepper:
    """Updates a model's trainable parameters from their gradients.

    With LoRA+ (Hayou et al. 2024) the parameters named lora_b have a learning rate `lora_plus` times as high.
    """

    def __init__(self, model: Any, config: TrainConfig) -> None:
        self._model, self._ratio = model, config.lora_plus
        parts = [_made(config)]
        if self._ratio != 1.0:
            parts.append(_made(config))
        self._parts = parts
        for part, own in zip(parts, self._split(model.trainable_parameters()), strict=True):
            part.init(own)

    def update(self, gradients: Any, rate: float) -> None:
        """One step with this learning rate (of A); everything is computed when it returns."""
        for number, (part, own) in enumerate(zip(self._parts, self._split(gradients), strict=True)):
            part.learning_rate = rate * (self._ratio if number else 1.0)
            part.update(self._model, own)
        mx.eval(self._model.trainable_parameters(), [part.state for part in self._parts])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state by name."""
        return {
            f"{number}.{name}": np.array(value)
            for number, part in enumerate(self._parts)
            for name, value in _flat(part.state).items()
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `arrays` returned. Raises KeyError when it is another optimizer's."""
        for number, part in enumerate(self._parts):
            state = [(name, mx.array(arrays[f"{number}.{name}"])) for name in _flat(part.state)]
            part.state = tree_unflatten(state)

    def _split(self, tree: Any) -> list[Any]:
        """The parameters of each part: all of them, or A's and B's."""
        if self._ratio == 1.0:
            return [tree]
        flat = list(_flat(tree).items())
        b = [(name, value) for name, value in flat if name.endswith("lora_b")]
        return [tree_unflatten([item for item in flat if not item[0].endswith("lora_b")]), tree_unflatten(b)]


def _made(config: TrainConfig) -> Any:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adafactor":  # with our schedule, not its own
        return optim.Adafactor(rate, weight_decay=decay, relative_step=False, scale_parameter=False)
    if config.optimizer == "lion":
        return optim.Lion(rate, weight_decay=decay)
    if config.optimizer == "muon":
        return optim.Muon(rate, weight_decay=decay)
    # without bias correction, MLX's default, the first steps would be three times too long
    return optim.AdamW(rate, weight_decay=decay, bias_correction=True)


def _flat(tree: Any) -> dict[str, mx.array]:
    return dict(tree_flatten(tree))
