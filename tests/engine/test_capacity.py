"""How many slots memory and cores allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.engine.capacity import LEAST_OF_A_LANE, MOST_LANES, MOST_SLOTS, SLOTS_PER_CORE, batch_slots, lane_sizes
from localllm.weights.gguf import read_header
from localllm.weights.inference import chatting


@pytest.mark.parametrize("slots", [1, 2, 5, 11])
def test_memory_holds_as_many_slots_as_its_estimate_says(guide_path: Path, slots: int) -> None:
    file = read_header(guide_path)
    needed = chatting(file, 1024, slots)
    enough = needed.needed + (len(lane_sizes(slots, 2)) - 1) * needed.buffers
    assert batch_slots(file, 1024, memory=enough, cores=2) == slots
    assert batch_slots(file, 1024, memory=enough - 1, cores=2) == max(1, slots - 1)


def test_cores_bound_the_slots_where_memory_does_not(guide_path: Path) -> None:
    file = read_header(guide_path)
    assert batch_slots(file, 256, memory=1 << 40, cores=2) == 2 * SLOTS_PER_CORE
    assert batch_slots(file, 256, memory=1 << 40, cores=1000) == MOST_SLOTS
    assert batch_slots(file, 256) >= 1


@pytest.mark.parametrize("slots", range(1, 40))
@pytest.mark.parametrize("cores", [1, 2, 3, 16])
def test_lanes_share_all_slots_evenly_and_none_is_small(slots: int, cores: int) -> None:
    lanes = lane_sizes(slots, cores)
    assert sum(lanes) == slots
    assert max(lanes) - min(lanes) <= 1
    assert len(lanes) == 1 or min(lanes) >= LEAST_OF_A_LANE
    assert len(lanes) <= min(MOST_LANES, cores)
    assert len(lanes) == min(MOST_LANES, cores) or slots < LEAST_OF_A_LANE * (len(lanes) + 1)
