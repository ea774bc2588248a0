"""A checkpoint comes back to the bit, damage is always seen, and a disk that is full costs nothing."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from localllm.tune import checkpoint
from localllm.tune.checkpoint import Checkpoint, newest, write

NUMBERS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def at(step: int) -> Checkpoint:
    arrays = {"a": NUMBERS * step, "step": np.array(step, np.uint64), "key": np.array([1, 2**32 - 1], np.uint32)}
    return Checkpoint(arrays, {"step": step, "best": float("inf"), "loss": 0.1 + 0.2, "log": ["ä"]})


def test_what_was_written_comes_back_to_the_bit(tmp_path: Path) -> None:
    write(tmp_path, at(7))
    found = newest(tmp_path).checkpoint
    assert found is not None
    assert found.facts == {"format": checkpoint.FORMAT, **at(7).facts}
    for name, value in at(7).arrays.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (value.dtype, value.shape)
        assert found.arrays[name].tobytes() == value.tobytes()


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    assert newest(tmp_path) == checkpoint.Found(None)
    for step in (5, 10, 900, 1000):
        write(tmp_path, at(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000900.checkpoint", "step-000001000.checkpoint"]
    checkpoint.remove_all(tmp_path)
    assert not checkpoint.exists(tmp_path)


def test_every_flipped_bit_is_seen_and_the_one_before_is_used(tmp_path: Path) -> None:
    write(tmp_path, at(1))
    path = write(tmp_path, at(2))
    whole = path.read_bytes()
    rng = random.Random(0)
    places = {*range(200 * 8), *(rng.randrange(len(whole) * 8) for _ in range(1000))}
    for place in places:
        broken = bytearray(whole)
        broken[place // 8] ^= 1 << place % 8
        path.write_bytes(broken)
        found = newest(tmp_path)
        assert found.damaged == (path,), place
        assert found.checkpoint is not None
        assert found.checkpoint.facts["step"] == 1


@pytest.mark.parametrize("length", [0, 10, 85, 300, -1])
def test_a_file_that_was_cut_short_is_seen(tmp_path: Path, length: int) -> None:
    write(tmp_path, at(1))
    path = write(tmp_path, at(2))
    path.write_bytes(path.read_bytes()[:length])
    assert newest(tmp_path).damaged == (path,)


def test_a_disk_that_is_full_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, at(1))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write(tmp_path, at(2))
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001.checkpoint"]
    found = newest(tmp_path).checkpoint
    assert found is not None
    assert found.facts["step"] == 1
