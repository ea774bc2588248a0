"""No row is lost, like lengths meet, and positions point at what predicts each supervised token."""

from __future__ import annotations

import random

import numpy as np

from localllm.data.batches import by_length, collate, epoch
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


def test_rows_of_like_length_share_a_batch() -> None:
    rows = examples(400)
    padded = sum(max(len(rows[i].tokens) for i in b) * len(b) for b in epoch(rows, 8, 0, 1))
    assert padded < 1.12 * sum(len(r.tokens) for r in rows)  # at random it is about 1.75


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
    targets = np.concatenate([b.targets for b in by_length(rows, 4)])
    assert len(targets) == sum(sum(r.mask[1:]) for r in rows)
