"""Which of how many processes this one is, where `mlx.launch` or `mpirun` has started several of the same command."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from localllm.errors import UsageError

Backend = Literal["ring", "jaccl", "nccl", "mpi"]
"""What carries the sums: TCP; Thunderbolt's RDMA; NVIDIA's library; Open MPI."""


@dataclass(frozen=True)
class Place:
    """A process's place among those of its run."""

    rank: int = 0
    """From 0, which alone writes and speaks."""
    size: int = 1
    backend: Backend = "ring"
    beside: int = 1
    """Processes of the run on this machine, this one among them."""


ALONE = Place()


def place(environ: Mapping[str, str]) -> Place:
    """Read what the launchers leave in the environment; ALONE where there is none of it.

    Raises UsageError where it says of a rank but not of how many, or where what it says cannot be.
    """
    try:
        found = _place(environ)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise _unclear(str(error)) from error
    if not 0 <= found.rank < found.size:
        raise _unclear(f"rank {found.rank} of {found.size}")
    return found


def shared_threads(where: Place) -> int | None:
    """Threads of the BLAS for each of several processes: its part of the machine's cores, always the same number.

    None, which has the fastest number measured, for the only process of a run, and where the person chose.
    """
    if where.size == 1 or "OPENBLAS_NUM_THREADS" in os.environ:
        return None
    return max(1, (os.cpu_count() or 1) // where.beside)


def _place(environ: Mapping[str, str]) -> Place:
    if "OMPI_COMM_WORLD_SIZE" in environ:
        beside = int(environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1"))
        return Place(int(environ["OMPI_COMM_WORLD_RANK"]), int(environ["OMPI_COMM_WORLD_SIZE"]), "mpi", beside)
    if "MLX_RANK" not in environ:
        return ALONE
    rank = int(environ["MLX_RANK"])
    if "MLX_HOSTFILE" in environ:
        hosts = _listed(environ["MLX_HOSTFILE"])
        # "10.0.0.1:32323", the first of each process's addresses
        machines = [addresses[0].rpartition(":")[0] for addresses in hosts]
        return Place(rank, len(hosts), "ring", machines.count(machines[rank])) if hosts else ALONE
    if "MLX_IBV_DEVICES" in environ:
        return Place(rank, len(_listed(environ["MLX_IBV_DEVICES"])), "jaccl")
    if "MLX_WORLD_SIZE" in environ:
        return Place(rank, int(environ["MLX_WORLD_SIZE"]), "nccl")
    raise ValueError("MLX_RANK is set, and none of MLX_HOSTFILE, MLX_IBV_DEVICES and MLX_WORLD_SIZE")


def _listed(path: str) -> list[Any]:
    """A file with one entry for each process; `mlx.launch -n 1` leaves it empty."""
    listed = json.loads(Path(path).read_text("utf-8").strip() or "[]")
    if not isinstance(listed, list):
        raise ValueError(f"{path} is not a list")
    return listed


def _unclear(why: str) -> UsageError:
    return UsageError(
        f"This process cannot tell which of several it is: {why}.",
        "Start it with `mlx.launch -n 2 -- localllm finetune ...`, or unset MLX_RANK.",
    )
