"""Log-probabilities of base and base + adapter in MLX, for comparison with llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from localllm.tune.lora import detached
from localllm.tune.loss import hidden_states, to_logits
from localllm.types import Example

LogProbs = NDArray[np.float32]


def log_probabilities(model: Any, sequences: Sequence[Example]) -> tuple[LogProbs, LogProbs]:
    """(base, base + adapter), each (positions, vocabulary): what is predicted where a sequence's mask says so.

    mask[i] of a sequence picks the distribution after token i. The model has LoRA attached.
    """
    model.eval()
    tuned = _each(model, sequences)
    with detached(model):
        base = _each(model, sequences)
    return base, tuned


def _each(model: Any, sequences: Sequence[Example]) -> LogProbs:
    rows: list[LogProbs] = []
    for sequence in sequences:
        states = hidden_states(model, mx.array([sequence.tokens]))[0]
        states = states[mx.array(np.flatnonzero(sequence.mask))]
        logits = to_logits(model, states)
        rows.append(np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True), np.float32))
    return np.concatenate(rows)
