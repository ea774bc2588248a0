"""With the built-in model, neighbours in the batch change no bit of an exact engine's numbers, nor does where a prompt
is cut in two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from localllm.engine.backend import Part
from localllm.engine.llama import LlamaEngine

PROMPT = list(range(40, 340))
NEIGHBOURS = [[500 + 7 * i + j for j in range(20 + 60 * i)] for i in range(5)]


def logits(engine: LlamaEngine, slot: int, neighbours: list[list[int]], cut: int) -> list[bytes]:
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
        assert context.decode([Part(slot, 0, PROMPT[:cut], 1)]) == "done"
    assert context.decode([Part(slot, cut, PROMPT[cut:], 1)]) == "done"
    found = [context._outputs.row(len(PROMPT) - cut - 1).tobytes()]
    parts = [Part(number, len(tokens), [99], 1) for number, tokens in beside.items()]
    parts = sorted([*parts, Part(slot, len(PROMPT), [77], 1)], key=lambda part: part.slot)
    assert context.decode(parts) == "done"
    return [*found, context._outputs.row([part.slot for part in parts].index(slot)).tobytes()]


def test_company_changes_no_bit(guide_path: Path) -> None:
    engine = LlamaEngine.open(guide_path, n_ctx=512, n_threads=2, n_slots=6, exact=True)
    try:
        alone = logits(engine, 0, [], 0)
        assert np.isfinite(np.frombuffer(alone[0], np.float32)).all()
        companies = [(3, 1, 0), (0, 2, 150), (5, 3, 296), (1, 4, 256)]
        assert all(logits(engine, slot, NEIGHBOURS[:n], cut) == alone for slot, n, cut in companies)
    finally:
        engine.close()
