#!/usr/bin/env python3
"""Measured peaks of the training process beside what localllm.weights.fit says of them.

    python scripts/fit.py MODEL.gguf 4x128 2x512 --rank 8     rows x tokens of each batch; one line for each

Every row is random tokens of the full length, half of them learned. A few real steps are made in the real training
process, validation and a checkpoint included; its peak is the kernel's VmHWM. Works on Linux.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localllm.tune.config import TrainConfig  # noqa: E402
from localllm.tune.job import Job, write_job  # noqa: E402
from localllm.tune.process import run_job  # noqa: E402
from localllm.types import Example  # noqa: E402
from localllm.weights.fit import TrainingSettings, model_of, training  # noqa: E402
from localllm.weights.gguf import read_header  # noqa: E402

SHARE = 0.5


class Peak(threading.Thread):
    """Looks at VmHWM of this process's children. Their ru_maxrss would not do: it begins with that of the parent."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.over = 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            for child in Path("/proc/self/task").glob("*/children"):
                for pid in child.read_text().split():
                    self.bytes = max(self.bytes, _peak_of(pid))


def _peak_of(pid: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return 0
    if b"localllm.tune" not in command:  # not yet what it is to become
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def measure(model: Path, settings: TrainingSettings, steps: int) -> int:
    """Bytes of the training process at its peak."""
    rng, vocabulary = random.Random(0), read_header(model).tensors["token_embd.weight"].shape[0]
    learned = round(settings.length * settings.supervised)
    mask = (False,) * (settings.length - learned) + (True,) * learned

    def row() -> Example:
        return Example(tuple(rng.randrange(vocabulary) for _ in range(settings.length)), mask)

    config = TrainConfig(
        epochs=1, batch_size=settings.rows, batch_tokens=None, learning_rate=1e-5, rank=settings.rank,
        max_steps=steps, dropout=0.1 * settings.dropout, accumulate=settings.accumulate, layers=settings.layers,
        targets=settings.targets, grad_checkpoint=settings.grad_checkpoint,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [row() for _ in range(settings.rows * steps * settings.accumulate)]
        write_job(folder, Job("train", model, folder, folder, config), train=rows, held_out=[row()])
        peak = Peak()
        peak.start()
        for _ in run_job(folder):
            pass
        peak.over.set()
        peak.join()
    return peak.bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("batches", nargs="+", metavar="ROWSxTOKENS")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--targets", default="", help="self_attn.q_proj,self_attn.v_proj")
    parser.add_argument("--dropout", action="store_true")
    parser.add_argument("--grad-checkpoint", action="store_true")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    for batch in args.batches:
        rows, length = map(int, batch.split("x"))
        settings = TrainingSettings(
            rows, length, SHARE, rank=args.rank, layers=args.layers, dropout=args.dropout, accumulate=args.accumulate,
            targets=tuple(filter(None, args.targets.split(","))), grad_checkpoint=args.grad_checkpoint,
        )  # fmt: skip
        began, estimate = time.perf_counter(), training(model_of(read_header(args.model)), settings)
        measured, error = measure(args.model, settings, args.steps), 0.0
        error = estimate.total / measured - 1
        if args.json:
            print(json.dumps({"measured": measured, "estimated": estimate.total, "error": error, **estimate.parts()}))
            continue
        name = f"{args.model.parent.name}/{args.model.name}"
        took = time.perf_counter() - began
        print(
            f"{name:24} {batch:>7} rank {args.rank:<3} measured {measured / 1e6:6.0f} MB  "
            f"estimated {estimate.total / 1e6:6.0f} MB  {error:+6.1%}  ({took:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
