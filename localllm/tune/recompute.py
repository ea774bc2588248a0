"""Gradient checkpointing: layers whose activations are computed again in the backward pass (Chen et al. 2016)."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from localllm.tune.randomness import random_key, set_random_key


def recompute_layers(model: Any) -> None:
    """Have each layer hold only its input while training. Its dropout draws the same numbers both times."""
    for layer in model.layers:
        kind = type(layer)
        layer.__class__ = type(kind.__name__, (kind,), {"__call__": _recomputed(kind)})


def _recomputed(kind: Any) -> Any:
    def call(self: Any, x: mx.array, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return kind.__call__(self, x, *args, **kwargs)
        key, calls = random_key(), 0

        def layer(parameters: Any, x: mx.array) -> Any:
            nonlocal calls
            calls += 1
            later, own = random_key(), self.trainable_parameters()
            if calls > 1:  # what dropout leaves out is part of the function
                set_random_key(key)
            self.update(parameters)
            try:
                return kind.__call__(self, x, *args, **kwargs)
            finally:
                self.update(own)
                if calls > 1:
                    set_random_key(later)

        return mx.checkpoint(layer)(self.trainable_parameters(), x)

    return call
