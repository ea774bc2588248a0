"""Cross-entropy at supervised positions only.

The output matrix is the widest of a small model, and most positions of a chat are not supervised: hidden states are
gathered first, and turned into logits a chunk at a time, so that [batch, length, vocabulary] is never held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import mlx.core as mx
from mlx.nn.losses import cross_entropy
from mlx.utils import tree_flatten

from localllm.data.batches import Batch
from localllm.tune.activations import exp

CHUNK_LOGITS = 1 << 21
"""Logits computed at once, 8 MiB of float32, of which some eight copies are in use at a time."""
CHUNK_ROWS = 32
"""Positions computed at once at least: with fewer, reading the output matrix takes longer than multiplying by it."""


def hidden_states(model: Any, tokens: mx.array) -> mx.array:
    """(batch, length) token ids -> (batch, length, width), before the output matrix."""
    states: mx.array = model.model(tokens)
    return states


def to_logits(model: Any, states: mx.array) -> mx.array:
    """(n, width) -> (n, vocabulary), float32; what follows the output matrix differs by class (Granite, Gemma 2)."""
    output = _output(model)
    logits: mx.array = (output if "lm_head" in model else output.as_linear)(states).astype(mx.float32)
    if (divisor := getattr(model.args, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (cap := getattr(model.args, "final_logit_softcapping", None)) is not None:
        logits = mx.tanh(logits / cap) * cap
    return logits


def batch_loss(model: Any, batch: Batch, of: int | None = None) -> mx.array:
    """Cross-entropy, in nats, summed over the supervised positions of a batch and divided by their number.

    Where a step has several batches, `of` is the number of all: what they return adds up to the mean over the step.
    """
    states = hidden_states(model, mx.array(batch.tokens[:, :-1]))
    states = states.reshape(-1, states.shape[-1])[mx.array(batch.positions)]
    targets = mx.array(batch.targets)
    return summed(model, states, targets) / (of or targets.size)


def summed(model: Any, states: mx.array, targets: mx.array) -> mx.array:
    """Cross-entropy summed over (n, width) states with (n,) targets, in chunks.

    Where the output matrix is frozen, each chunk's gradient for its states is computed together with its loss, from the
    same logits (as Hsu et al. 2024 do in Liger Kernel); then the logits are let go.
    """
    if tree_flatten(_output(model).trainable_parameters()):
        return cross_entropy(to_logits(model, states), targets, reduction="sum")
    rows = max(CHUNK_ROWS, CHUNK_LOGITS // model.args.vocab_size)
    total = mx.array(0.0)
    for start in range(0, targets.size, rows):
        part = mx.depends([states[start : start + rows]], [total])[0]  # one chunk after the other, not all at once
        total = total + _of_chunk(model, targets[start : start + rows])(part)[0]
    return total


def _output(model: Any) -> Any:
    """What holds the output matrix: with tied weights the embedding."""
    return model.lm_head if "lm_head" in model else model.model.embed_tokens


def _of_chunk(model: Any, targets: mx.array) -> Callable[[mx.array], tuple[mx.array, mx.array]]:
    """(n, width) states -> their summed cross-entropy, and its gradient for them."""

    @mx.custom_function
    def loss(states: mx.array) -> tuple[mx.array, mx.array]:
        logits = to_logits(model, states)
        highest = mx.max(logits, axis=-1, keepdims=True)
        powers = exp(logits - highest)
        sums = mx.sum(powers, axis=-1, keepdims=True)
        wanted = mx.take_along_axis(logits, targets[:, None], axis=-1)
        difference = (powers / sums).at[mx.arange(targets.size), targets].add(-1)
        _, gradient = mx.vjp(lambda x: to_logits(model, x), [states], [difference])
        summed = mx.sum(mx.log(sums) + highest - wanted)
        return mx.depends([summed], gradient)[0] if model.training else summed, gradient[0]

    @loss.vjp
    def backward(_states: mx.array, cotangents: Sequence[mx.array], outputs: Sequence[mx.array]) -> mx.array:
        return cotangents[0] * outputs[1]

    return cast(Callable[[mx.array], tuple[mx.array, mx.array]], loss)
