"""Draws the result of a verification."""

from __future__ import annotations

from typing import Any

from localllm.cli.output import say


def draw(result: Any) -> None:
    """The table on standard output, a remark on standard error."""
    a, c = result.agreement, result.conversion
    print(f"{'mean KL, llama.cpp‖MLX':34}{'base':>10}{'adapter':>10}")
    if c is not None:
        which = "" if c.layers == c.of else f", {c.layers} of {c.of} layers"
        print(f"{f'conversion (float32{which})':34}{c.base_kl:10.1e}{c.kl:10.1e}")
    print(f"{'with rounding, on the file itself':34}{a.base_kl:10.1e}{a.kl:10.1e}")
    print(f"{'same top token':34}{a.base_top1:10.1%}{a.top1:10.1%}")
    print(f"effect: cosine {a.effect_cosine:.4f}, size {a.effect_kl:.3g} nats a token, at {a.positions} positions")
    if result.remark:
        say(f"localllm: warning: {result.remark}")
    print(f"{result.adapter}: {'verified' if result.passed else 'NOT verified'}")
