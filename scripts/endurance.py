#!/usr/bin/env python3
"""Many short documents through `localllm summarize`: does memory stay flat, and does the last hundred go as fast?

    scripts/endurance.py [MODEL] [--documents 1000] [--seed 0]

The documents are random sentences about the rooms of a house, so that none shares its beginning with another. Memory is
what the command and its engine's child have resident together, looked at as each row is written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

HUNDRED, SETTLED = 100, 50
WORDS = (
    "door", "window", "stair", "lamp", "chair", "shelf", "mirror", "carpet", "clock", "table", "kitchen", "garden",
    "cellar", "attic", "bell", "candle",
)  # fmt: skip


def documents(folder: Path, number: int, seed: int) -> Path:
    """A file of so many rows, each about 60 tokens."""
    random_ = random.Random(seed)
    path = folder / "documents.jsonl"
    with path.open("w") as file:
        for _ in range(number):
            words = [random_.choice(WORDS) for _ in range(45)]
            file.write(json.dumps({"text": " ".join(words).capitalize() + "."}) + "\n")
    return path


def resident(pid: int) -> int:
    """Bytes of a process and of all below it."""
    below: dict[int, list[int]] = {}
    sizes: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit():
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                below.setdefault(int(fields[1]), []).append(int(entry))
                sizes[int(entry)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue  # it has just ended
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        total += sizes.get(one, 0)
        todo += below.get(one, [])
    return total


def run(model: str, number: int, tokens: int, seed: int) -> int:
    with TemporaryDirectory(prefix="localllm-endurance-") as name:
        rows, out = documents(Path(name), number, seed), Path(name) / "out.jsonl"
        command = [
            sys.executable, "-m", "localllm", "summarize", str(rows), "--out", str(out), "-m", model, "--json",
            "--ctx", "256", "--max-tokens", str(tokens), "--field", "text", "--quiet",
        ]  # fmt: skip
        times: list[float] = []
        sizes: list[int] = []
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for line in child.stdout:
            if json.loads(line)["event"] == "item":
                times.append(time.perf_counter())
                sizes.append(resident(child.pid))
        if child.wait():
            return child.returncode
        done = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(done) == len(times) == number, (len(done), len(times))
    assert not any(row["error"] for row in done)
    return report(times, sizes)


def report(times: list[float], sizes: list[int]) -> int:
    """Say it; 1 where memory grew by more than 3% or the last hundred took 5% longer than the first."""
    settled, most, last = sizes[SETTLED], max(sizes[SETTLED:]), statistics.median(sizes[-SETTLED:])
    # The very first documents wait for the model to be loaded.
    first, final = times[SETTLED + HUNDRED] - times[SETTLED], times[-1] - times[-1 - HUNDRED]
    print(f"{len(times)} documents, {60 * (len(times) - 1) / (times[-1] - times[0]):.0f} a minute")
    print(
        f"memory after {SETTLED}: {settled / 1e6:.1f} MB; most from there on {most / settled - 1:+.2%}, at the end "
        f"{last / settled - 1:+.2%}"
    )
    print(f"a hundred documents after {SETTLED}: {first:.2f} s; the last: {final:.2f} s ({final / first - 1:+.1%})")
    return int(most > 1.03 * settled or final > 1.05 * first)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", default="guide")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    return run(args.model, args.documents, args.max_tokens, args.seed)


if __name__ == "__main__":
    raise SystemExit(main())
