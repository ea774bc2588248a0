"""How prompts are cut into batches."""

from __future__ import annotations

import random

import pytest

from localllm.engine.chunking import TILE, cut


@pytest.mark.parametrize(
    "waiting, expected",
    [
        ([300], (1, 300)),
        ([2000], (1, 512)),
        ([2000, 2000, 2000], (1, 512)),
        ([114, 626, 626, 626, 626, 626], (4, 114)),  # as many of each as the first one has left
        ([550], (1, 550 - TILE)),  # what is left fills a tile
        ([200, 200, 200], (3, 200 - TILE)),
        ([20] * 16, (16, 20)),
        ([20, 22, 25], (3, 20)),
        ([1], (1, 1)),
    ],
)
def test_cuts(waiting: list[int], expected: tuple[int, int]) -> None:
    assert cut(waiting, 512) == expected


def test_any_prompts_are_read_to_their_ends_in_batches_that_fit() -> None:
    random_ = random.Random(0)
    for _ in range(300):
        room = random_.choice((1, 7, 64, 512))
        waiting = [random_.randint(1, 10 ** random_.randint(1, 3)) for _ in range(random_.randint(1, 20))]
        for _ in range(sum(waiting)):
            n, count = cut(waiting, room)
            assert 1 <= n <= len(waiting)
            assert 1 <= count <= min(waiting[:n])
            assert n * count <= room
            waiting = [left for left in [*(left - count for left in waiting[:n]), *waiting[n:]] if left]
            if not waiting:
                break
        assert not waiting
