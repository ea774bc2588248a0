"""How closely one engine reproduces another, from log-probabilities of both at the same positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LogProbs = NDArray[np.float32]
"""(positions, vocabulary)"""


@dataclass(frozen=True)
class Agreement:
    """llama.cpp against MLX, over the positions of some held-out rows. Divergences are means, in nats."""

    positions: int
    base_kl: float
    """KL(llama.cpp ‖ MLX) of the base alone: llama.cpp rounds activations on a quantized base."""
    kl: float
    """The same with the adapter."""
    top1: float
    """Share of positions where both find the same token likeliest, with the adapter."""
    base_top1: float
    """The same for the base alone."""
    effect_cosine: float
    """Cosine between what the adapter changes in llama.cpp and in MLX; 0 when it changes nothing."""
    effect_kl: float
    """KL(base + adapter ‖ base) in MLX: how far the adapter moves the model."""


def kl(p: LogProbs, q: LogProbs) -> float:
    """Mean KL(p ‖ q) over positions, from log-probabilities."""
    total = 0.0
    for a, b in zip(p, q, strict=True):  # a row at a time: float64 copies of whole tables would double the memory
        x, y = _normalized(a), _normalized(b)
        total += float(np.sum(np.exp(x) * (x - y)))
    return total / max(len(p), 1)


def _normalized(row: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities that sum to 1 in float64 too: what float32 lost of the sum would outweigh a small divergence."""
    exact = row.astype(np.float64)
    return np.asarray(exact - np.log(np.exp(exact).sum()))


def log_softmax(logits: LogProbs) -> LogProbs:
    """Log-probabilities of logits, along the last axis, with float64 sums."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    normal = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return np.asarray(normal, np.float32)


def compare(base: tuple[LogProbs, LogProbs], tuned: tuple[LogProbs, LogProbs]) -> Agreement:
    """Agreement of (llama.cpp, MLX) log-probabilities, for the base and with the adapter."""
    (llama_base, mlx_base), (llama, mlx) = base, tuned
    return Agreement(
        positions=len(mlx),
        base_kl=kl(llama_base, mlx_base),
        kl=kl(llama, mlx),
        top1=float(np.mean(llama.argmax(-1) == mlx.argmax(-1))),
        base_top1=float(np.mean(llama_base.argmax(-1) == mlx_base.argmax(-1))),
        effect_cosine=_effect_cosine(llama, llama_base, mlx, mlx_base),
        effect_kl=kl(mlx, mlx_base),
    )


def _effect_cosine(llama: LogProbs, llama_base: LogProbs, mlx: LogProbs, mlx_base: LogProbs) -> float:
    """Cosine over all positions of the change in log-probabilities, its mean taken out at each position."""
    dot = left = right = 0.0
    for row in range(len(mlx)):
        x, y = _centred(llama[row], llama_base[row]), _centred(mlx[row], mlx_base[row])
        dot, left, right = dot + float(x @ y), left + float(x @ x), right + float(y @ y)
    return dot / (left * right) ** 0.5 if left > 0 and right > 0 else 0.0


def _centred(tuned: NDArray[np.float32], base: NDArray[np.float32]) -> NDArray[np.float64]:
    change = tuned.astype(np.float64) - base
    return np.asarray(change - change.mean())
