"""With the built-in model, neighbours in the batch hardly ever change a bit of an exact engine's numbers, nor does
where a prompt is cut in two; without `exact` they often do.

llama.cpp multiplies interleaved 4-bit weights with four rows at a time, and what is left over in another way, which now
and then rounds an activation differently.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from localllm.engine.backend import Part
from localllm.engine.llama import LlamaEngine

NEIGHBOURS = [[500 + 7 * i + j for j in range(20 + 60 * i)] for i in range(5)]


def logits(engine: LlamaEngine, prompt: list[int], slot: int, neighbours: list[list[int]], cut: int) -> list[bytes]:
    """Of the prompt's last token, computed in two pieces, and of one more beside the neighbours' next ones."""
    context = engine._context
    assert context is not None
    free = [number for number in range(6) if number != slot]
    beside = dict(zip(free, neighbours, strict=False))
    for number in range(6):
        context.trim(number, 0)
    for number, tokens in beside.items():
        assert context.decode([Part(number, 0, tokens, 1)]) == "done"
    if cut:
        assert context.decode([Part(slot, 0, prompt[:cut], 1)]) == "done"
    assert context.decode([Part(slot, cut, prompt[cut:], 1)]) == "done"
    found = [context._outputs.row(len(prompt) - cut - 1).tobytes()]
    parts = [Part(number, len(tokens), [99], 1) for number, tokens in beside.items()]
    parts = sorted([*parts, Part(slot, len(prompt), [77], 1)], key=lambda part: part.slot)
    assert context.decode(parts) == "done"
    return [*found, context._outputs.row([part.slot for part in parts].index(slot)).tobytes()]


def same(guide_path: Path, *, exact: bool) -> float:
    """The share of prompts and companies in which no bit is another than alone."""
    engine = LlamaEngine.open(guide_path, n_ctx=512, n_threads=2, n_slots=6, exact=exact)
    rng, equal, tried = random.Random(1), 0, 0
    try:
        for _ in range(8):
            prompt = [rng.randrange(5, 4000) for _ in range(rng.randrange(50, 400))]
            alone = logits(engine, prompt, 0, [], 0)
            assert np.isfinite(np.frombuffer(alone[0], np.float32)).all()
            for slot, n, cut in ((3, 1, 0), (0, 2, len(prompt) // 2), (1, 4, 37)):
                equal += logits(engine, prompt, slot, NEIGHBOURS[:n], cut) == alone
                tried += 1
    finally:
        engine.close()
    return equal / tried


def test_company_changes_hardly_a_bit(guide_path: Path) -> None:
    assert same(guide_path, exact=True) >= 0.8


def test_without_exact_it_often_changes_some(guide_path: Path) -> None:
    assert same(guide_path, exact=False) <= 0.75
