"""What the training child is told, the same way for a run in one process and for one in several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from localllm.store.registry import Registry
from localllm.tasks.preparing import FinetuneRequest, Prepared
from localllm.tune.job import Job
from localllm.tune.resume import fingerprint


def marks_of(request: FinetuneRequest, prepared: Prepared, base_sha256: str, processes: int) -> dict[str, Any]:
    """What has to be the same for a run to go on."""
    marks = fingerprint(base_sha256, request.other, prepared.config, prepared.train, prepared.held_out, processes)
    return marks | {"mlx_folder": prepared.mlx.sha256 if prepared.mlx else None}


def job_of(
    registry: Registry,
    request: FinetuneRequest,
    prepared: Prepared,
    marks: dict[str, Any],
    processes: int,
    adapter: Path,
) -> Job:
    """Training of what was prepared; the adapter goes into the folder `adapter`."""
    return Job(
        mode="train",
        model=prepared.model.path,
        adapter=adapter,
        cache=registry.home.cache,
        config=prepared.config,
        other=request.other,
        mlx=prepared.mlx.folder.path if prepared.mlx else None,
        fingerprint=marks,
        save_every=request.save_every,
        processes=processes,
    )
