"""Cross-entropy at supervised positions only.

The output matrix is the widest of a small model, and most positions of a chat are not supervised: hidden states are
gathered first, and turned into logits a chunk at a time, so that [batch, length, vocabulary] is never held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx.nn.losses import cross_entropy

from localllm.data.batches import Batch

CHUNK_LOGITS = 1 << 22
"""Logits held at once: 16 MiB of float32, of which some four copies are in use at a time."""


def hidden_states(model: Any, tokens: mx.array) -> mx.array:
    """(batch, length) token ids -> (batch, length, width), before the output matrix."""
    states: mx.array = model.model(tokens)
    return states


def to_logits(model: Any, states: mx.array) -> mx.array:
    """(n, width) -> (n, vocabulary), float32; what follows the output matrix differs by class (Granite, Gemma 2)."""
    output = model.lm_head if "lm_head" in model else model.model.embed_tokens.as_linear
    logits: mx.array = output(states).astype(mx.float32)
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
    """Cross-entropy summed over (n, width) states with (n,) targets, in chunks whose logits are computed twice."""
    rows = max(1, CHUNK_LOGITS // model.args.vocab_size)

    def of_chunk(wanted: mx.array) -> Callable[[mx.array], mx.array]:
        return lambda x: cross_entropy(to_logits(model, x), wanted, reduction="sum")

    if targets.size <= rows:
        return of_chunk(targets)(states)
    total = mx.array(0.0)
    for start in range(0, targets.size, rows):
        # the checkpoint differentiates its arguments only: the frozen output matrix and the targets are no such
        recomputed = mx.checkpoint(of_chunk(targets[start : start + rows]))
        total = total + recomputed(states[start : start + rows])
    return total
