"""Several processes that meet over TCP on this machine: what a rank does in tests, and how ranks are started."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def free_ports(n: int) -> int:
    """The first of so many in a row that nobody listens on; below those that the system gives to others."""
    for _ in range(100):
        first = random.SystemRandom().randrange(15_000, 32_000)
        with ExitStack() as stack:
            try:
                for port in range(first, first + n):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first
    raise AssertionError("no free ports")


def environments(folder: Path, n: int = 2) -> list[dict[str, str]]:
    """What `mlx.launch` would set for each rank."""
    port = free_ports(n)
    hosts = folder / f"hosts-{port}.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port + rank}"] for rank in range(n)]))
    return [os.environ | {"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(rank)} for rank in range(n)]


@contextmanager
def started(command: Sequence[str], folder: Path, n: int = 2) -> Iterator[list[subprocess.Popen[str]]]:
    """The ranks of a command, which are gone afterwards."""
    with ExitStack() as stack:
        ranks: list[Any] = []
        for environment in environments(folder, n):
            process = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            ranks.append(process)
        yield ranks


def run(command: Sequence[str], folder: Path, n: int = 2) -> list[tuple[int, str, str]]:
    """Status, output and errors of each rank."""
    with started([sys.executable, *command], folder, n) as ranks:
        said = [rank.communicate(timeout=240) for rank in ranks]
        return [(rank.returncode, *texts) for rank, texts in zip(ranks, said, strict=True)]
