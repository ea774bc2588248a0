"""The processes of one run, each with a share of every batch, whose gradients are summed before each step.

Every process has the same rows in the same order and keeps the same numbers; what is summed is divided by the number of
supervised tokens of the whole step, so that the sum is the gradient of the whole step, however it was shared out. With
one process nothing is summed, and nothing is computed that would not be without this file. All processes call the same
methods in the same order: each waits for the others there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from localllm.errors import TrainingError
from localllm.tune.randomness import set_random_key
from localllm.tune.ranks import Place
from localllm.tune.resume import differences

T = TypeVar("T")


class Group:
    """One process's view of all of them. Raises TrainingError where another one has gone."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's part of them: every `size`-th, so that rows sorted by length are shared out evenly."""
        return rows if self.size == 1 else rows[self.rank :: self.size]

    def sum_gradients(self, loss: float, gradients: Any) -> tuple[float, Any]:
        """The sums over all processes, in one message; the same bits in each."""
        if self.size == 1:
            return loss, gradients
        flat: list[tuple[str, mx.array]] = tree_flatten(gradients)  # type: ignore[assignment]
        ends = np.cumsum([1, *(value.size for _, value in flat)])
        parts = [mx.array([loss]), *(value.astype(mx.float32).reshape(-1) for _, value in flat)]
        first, *summed = mx.split(_sum(mx.concatenate(parts)), ends[:-1].tolist())
        pairs = zip(flat, summed, strict=True)
        shaped = [(name, part.reshape(value.shape).astype(value.dtype)) for (name, value), part in pairs]
        return float(np.array(first)[0]), tree_unflatten(shaped)

    def sum(self, value: float) -> float:
        """Over all processes, rounded to float32 where they are several."""
        return value if self.size == 1 else float(np.array(_sum(mx.array([value], mx.float32)))[0])

    def any(self, flag: bool) -> bool:
        """Whether it is set in any process: they all hear the same."""
        return flag if self.size == 1 else self.sum(float(flag)) > 0

    def reseed(self, seed: int, step: int) -> None:
        """Where there are several, draw what belongs to this step and this process.

        So they drop out different numbers, and a run that goes on draws what it would have drawn.
        """
        if self.size > 1:
            key = np.random.SeedSequence([seed, step, self.rank]).generate_state(2)
            set_random_key(key.astype(np.uint32))

    def from_first(self, content: bytes | None) -> bytes | None:
        """What process 0 has, in every process."""
        if self.size == 1:
            return content
        own = content or b"" if self.rank == 0 else b""
        length = int(np.array(_sum(mx.array([len(own)], mx.int64)))[0])
        sent = np.zeros(length, np.uint8)
        sent[: len(own)] = np.frombuffer(own, np.uint8)
        return bytes(np.array(_sum(mx.array(sent)))) if length else None

    def gather(self, value: Any) -> list[Any]:
        """What each process has, in the order of their ranks: a JSON value."""
        if self.size == 1:
            return [value]
        own = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = np.zeros(self.size, np.int32)
        lengths[self.rank] = own.size
        lengths = np.array(_sum(mx.array(lengths)))
        table = np.zeros((self.size, int(lengths.max())), np.uint8)
        table[self.rank, : own.size] = own
        table = np.array(_sum(mx.array(table)))
        return [json.loads(bytes(row[:n])) for row, n in zip(table, lengths, strict=True)]

    def check_same(self, fingerprint: dict[str, Any]) -> None:
        """Raises TrainingError in every process where one was given other rows or settings than process 0."""
        first, *others = self.gather(fingerprint)
        for rank, other in enumerate(others, 1):
            if first != other:
                raise TrainingError(
                    f"Process {rank} was not given what process 0 was: {'; '.join(differences(first, other))}.",
                    "Start all processes with the same command, the same data and the same model.",
                )


ALONE = Group()


def join(place: Place) -> Group:
    """Meet the other processes, waiting for the last of them; no other thread of this one goes on meanwhile.

    Raises TrainingError where they cannot meet.
    """
    if place.size == 1:
        return ALONE
    try:
        met = mx.distributed.init(strict=True, backend=place.backend)
    except RuntimeError as error:
        raise TrainingError(
            f"The {place.size} processes cannot reach each other: {error}.",
            "Look at the host file, and whether the ports are free (mlx.launch --starting-port).",
        ) from error
    return Group(met.rank(), met.size())


def _sum(array: mx.array) -> mx.array:
    mx.eval(array)  # so that what fails below is the connection
    summed = mx.distributed.all_sum(array)
    try:
        mx.eval(summed)
    except RuntimeError as error:
        raise TrainingError(
            "Another process of the run has ended, or its machine cannot be reached.",
            "What it said tells why; the same command then goes on where the run was saved.",
        ) from error
    return summed
