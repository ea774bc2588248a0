"""Loss and perplexity from logits whose right values are known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from localllm.engine.llama import PREFILL_CHUNK, LlamaEngine
from localllm.evaluate.agreement import log_softmax
from localllm.evaluate.general import paragraphs
from localllm.evaluate.perplexity import Change, Loss, RowLoss, negative_log_likelihood, row_loss
from localllm.types import Example


class Table:
    """Probabilities after each token, by the token; given in parts of two positions."""

    def __init__(self, probabilities: list[list[float]]) -> None:
        self.logits = np.log(np.array(probabilities, np.float32)) + 7  # logits are known up to a constant

    def logit_chunks(self, tokens: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for start in range(0, len(tokens), 2):
            yield start, self.logits[list(tokens[start : start + 2])]


def test_only_supervised_tokens_count_and_never_the_first() -> None:
    table = Table([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    row = Example((0, 1, 1, 2, 0), (True, False, True, True, True))
    loss = row_loss(table, row)
    assert loss.tokens == 3
    assert loss.nats == pytest.approx(-math.log(0.8 * 0.1 * 0.2), rel=1e-6)
    assert row_loss(table, Example((1,), (True,))) == RowLoss(0.0, 0)
    both = Loss((loss, row_loss(table, Example((0, 0), (True, True)))))
    assert both.mean == pytest.approx(-math.log(0.8 * 0.1 * 0.2 * 0.5) / 4, rel=1e-6)
    assert both.perplexity == pytest.approx((0.8 * 0.1 * 0.2 * 0.5) ** -0.25, rel=1e-6)
    uniform = Loss((row_loss(Table([[1 / 3] * 3] * 3), row),))
    assert uniform.perplexity == pytest.approx(3, rel=1e-6)


def test_huge_logits_do_not_overflow() -> None:
    assert negative_log_likelihood(np.array([1e30, 0.0], np.float32), 0) == 0.0
    assert Loss((RowLoss(1e9, 1),)).perplexity == math.inf
    assert math.isnan(Loss(()).perplexity)


def test_a_change_knows_how_sure_it_is() -> None:
    base, adapter = Loss((RowLoss(10, 10), RowLoss(30, 20))), Loss((RowLoss(5, 10), RowLoss(20, 20)))
    change = Change(base, adapter)
    assert change.difference == pytest.approx(-0.5)
    assert change.perplexity_change == pytest.approx(math.exp(-0.5) - 1)
    assert change.standard_error == pytest.approx(0.0)  # half a nat a token in each row
    unequal = Change(Loss((RowLoss(10, 10), RowLoss(10, 10))), Loss((RowLoss(8, 10), RowLoss(10, 10))))
    assert unequal.standard_error == pytest.approx(0.1)  # differences -0.2 and 0: deviation 0.1414, over root 2
    assert Change(Loss((RowLoss(1, 1),)), Loss((RowLoss(9, 1),))).standard_error == 0.0


def test_the_engine_gives_what_the_whole_table_has(guide: LlamaEngine) -> None:
    tokens = (guide.tokenize("\n\n".join(paragraphs())))[: PREFILL_CHUNK + 40]
    row = Example(tuple(tokens), tuple(i % 3 == 0 for i in range(len(tokens))))
    table = log_softmax(guide.logits(tokens))
    right = [-float(table[i - 1, tokens[i]]) for i in range(3, len(tokens), 3)]
    loss = row_loss(guide, row)
    assert len(tokens) == PREFILL_CHUNK + 40
    assert loss.tokens == len(right)
    assert loss.nats == pytest.approx(sum(right), rel=1e-5)


def test_the_general_text_is_varied_and_ships() -> None:
    text = paragraphs()
    assert 2000 <= len("\n\n".join(text).encode()) <= 4096
    assert len(text) == 10
    assert all(120 < len(part) < 600 for part in text)
    assert any(part.startswith("def ") for part in text)
    assert len({part[:20] for part in text}) == len(text)
