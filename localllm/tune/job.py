"""What the training child is given: a folder with job.json and examples.npz."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from localllm.tune.config import TrainConfig
from localllm.types import Example
from localllm.weights.convert import Other

JOB, EXAMPLES = "job.json", "examples.npz"
FINISH = "finish"
"""An empty file that asks a run to end now, with the best so far."""
METRICS = "metrics.jsonl"
"""In the adapter's folder: the events of the whole run."""
BASE_LOGPROBS, TUNED_LOGPROBS = "base.npy", "tuned.npy"


@dataclass(frozen=True)
class Job:
    """Work for one child process."""

    mode: Literal["train", "compare"]
    model: Path
    """The base GGUF."""
    adapter: Path
    """Folder of the adapter: written by "train", read by "compare"."""
    cache: Path
    """Where the compiled BLAS shim is kept."""
    config: TrainConfig | None = None
    """For "train"."""
    other: Other = "16bit"
    """What weights become that MLX cannot hold quantized, where the others stay so."""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    """For "train": what has to be the same for the run to go on (see tune.resume)."""
    mlx: Path | None = None
    """For "train": the folder whose weights train in place of the model's own."""
    save_every: int | None = None
    """For "train": steps between checkpoints; None: by the clock."""
    processes: int = 1
    """For "train": how many of them have the run together, each with this job in a folder of its own."""


def write_job(folder: Path, job: Job, **rows: Sequence[Example]) -> None:
    """Write a job and its named lists of examples ("train" and "held_out", or "sequences")."""
    arrays: dict[str, Any] = {}
    for name, examples in rows.items():
        arrays[f"{name}.lengths"] = np.array([len(e.tokens) for e in examples], np.int64)
        arrays[f"{name}.tokens"] = np.array([t for e in examples for t in e.tokens], np.int32)
        arrays[f"{name}.mask"] = np.array([m for e in examples for m in e.mask], bool)
    np.savez(folder / EXAMPLES, **arrays)
    fields = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(job).items()}
    (folder / JOB).write_text(json.dumps(fields), "utf-8")


def read_job(folder: Path) -> Job:
    """The job in a folder."""
    fields = json.loads((folder / JOB).read_text("utf-8"))
    config = fields.pop("config")
    if config is not None:
        config = TrainConfig(**config | {"targets": tuple(config["targets"])})
    paths = {name: Path(fields[name]) for name in ("model", "adapter", "cache", "mlx") if fields[name]}
    return Job(**{**fields, **paths, "config": config})


def read_examples(folder: Path, name: str) -> list[Example]:
    """One of the lists of examples that `write_job` stored."""
    with np.load(folder / EXAMPLES) as arrays:
        lengths, tokens, mask = (arrays[f"{name}.{part}"] for part in ("lengths", "tokens", "mask"))
    ends = np.cumsum(lengths)
    return [
        Example(tuple(tokens[end - n : end].tolist()), tuple(mask[end - n : end].tolist()))
        for n, end in zip(lengths, ends, strict=True)
    ]
