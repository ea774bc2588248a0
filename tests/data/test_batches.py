"""No row is lost, like lengths meet, and positions point at what predicts each supervised token."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from localllm.data.batches import by_length, collate, count, epoch
from localllm.types import Example


def examples(n: int) -> list[Example]:
    rng = random.Random(0)
    lengths = [rng.randrange(5, 200) for _ in range(n)]
    return [Example(tuple(range(1, k + 1)), (False,) * 3 + (True,) * (k - 3), i) for i, k in enumerate(lengths)]


def test_every_row_is_in_exactly_one_batch_of_each_epoch() -> None:
    rows = examples(101)
    for number in (1, 2):
        batches = epoch(rows, 8, seed=0, number=number)
        assert sorted(i for batch in batches for i in batch) == list(range(101))
        assert all(1 <= len(batch) <= 8 for batch in batches)
    assert epoch(rows, 8, 0, 1) == epoch(rows, 8, 0, 1)
    assert epoch(rows, 8, 0, 1) != epoch(rows, 8, 0, 2)
    assert epoch(rows, 8, 0, 1) != epoch(rows, 8, 1, 1)
    assert epoch(rows[:1], 8, 0, 1) == [[0]]


def test_a_budget_bounds_the_tokens_of_a_batch_and_a_long_row_is_alone() -> None:
    rows = [*examples(300), Example((1,) * 900, (False,) * 899 + (True,), 300)]
    lengths = [len(r.tokens) for r in rows]
    for number in range(1, 9):
        batches = epoch(rows, 16, 0, number, budget=600)
        assert sorted(i for batch in batches for i in batch) == list(range(301))
        assert len(batches) == count(rows, 16, 600)  # of any epoch: so that the steps of a run are known
        assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= 600 for b in batches)
        assert [300] in batches
    assert count(rows, 16) == math.ceil(301 / 16)
    assert max(len(b) for b in epoch(rows, 16, 0, 1, budget=600)) == 16  # short rows still meet the other limit


def test_who_shares_a_batch_differs_from_epoch_to_epoch() -> None:
    rows = examples(400)
    first, second = ({frozenset(b) for b in epoch(rows, 8, 0, number)} for number in (1, 2))
    assert len(first & second) < 0.25 * len(first)


def padding(rows: list[Example], batches: list[list[int]]) -> float:
    """Share of padding in all tokens."""
    padded = sum(max(len(rows[i].tokens) for i in b) * len(b) for b in batches)
    return 1 - sum(len(r.tokens) for r in rows) / padded


def test_rows_of_like_length_share_a_batch() -> None:
    rows = examples(400)
    assert padding(rows, epoch(rows, 8, 0, 1)) < 0.03  # at random it is about 0.43


@pytest.mark.parametrize("batch_size", [4, 8, 16])
def test_real_instructions_have_little_padding(shared: Path, guide_path: Path, batch_size: int) -> None:
    from localllm.data.dataset import read_dataset
    from localllm.data.examples import Encoder
    from localllm.engine.llama import LlamaEngine

    engine = LlamaEngine.open(guide_path, vocab_only=True)
    encoder = Encoder(engine, engine.info.has_template, engine.vocab.eos, engine.vocab.is_end)
    rows = [
        example
        for row in read_dataset(shared / "instructions/instruction-1100/instruction-data.json")
        for example in encoder.encode(row)
    ]
    engine.close()
    assert len(rows) == 1100
    for budget in (None, 4096, 512):
        assert all(padding(rows, epoch(rows, batch_size, 0, n, budget)) < 0.03 for n in (1, 2, 3))


def test_a_batch_points_at_the_position_before_each_target() -> None:
    batch = collate([Example((5, 6, 7), (False, True, True)), Example((8, 9), (True, True))])
    assert batch.tokens.tolist() == [[5, 6, 7], [8, 9, 0]]
    assert batch.positions.tolist() == [0, 1, 2]
    assert batch.targets.tolist() == [6, 7, 9]
    assert batch.n_tokens == 5
    inputs = batch.tokens[:, :-1].reshape(-1)[batch.positions]
    assert inputs.tolist() == [5, 6, 8]


def test_evaluation_sees_every_target_once() -> None:
    rows = examples(30)
    for budget in (None, 500):
        batches = list(by_length(rows, 4, budget))
        assert sum(len(b.targets) for b in batches) == sum(sum(r.mask[1:]) for r in rows)
        assert sum(b.n_tokens for b in batches) == sum(len(r.tokens) for r in rows)
