"""Fine-tuning in several processes, which `mlx.launch` has started with the same command, on one machine or on several.

The first of them (rank 0) does what `tasks.finetune` does, and it alone writes and reports. The others prepare the same
rows for themselves, train their share of each batch in a folder that is removed again, and end when training does.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from localllm.errors import CancelledError, TrainingError, UsageError
from localllm.store.machine import available_memory
from localllm.store.registry import Registry
from localllm.tasks.jobs import job_of, marks_of
from localllm.tasks.memory import check_fit, residence_here, settings_of
from localllm.tasks.preparing import FinetuneRequest, Prepared, prepare
from localllm.tune.events import Ready, Trained, TuneEvent
from localllm.tune.job import write_job
from localllm.tune.process import run_job
from localllm.tune.ranks import Place

PATIENCE = 900.0
"""Seconds for all processes to come and load the model: some may read it from a slower disk than others."""


def follow(registry: Registry, request: FinetuneRequest, where: Place, cancel: threading.Event | None = None) -> None:
    """Train the share of a process that is not the first; nothing is kept of it here.

    Raises what `finetune` raises before training; TrainingError where any of the processes failed, and CancelledError
    where any was stopped.
    """
    prepared = prepare(registry, request)
    check_together(request, prepared, where)
    marks = marks_of(request, prepared, registry.sha256(prepared.model.path), where.size)
    with TemporaryDirectory(prefix="localllm-finetune-") as name:
        folder = Path(name)
        job = job_of(registry, request, prepared, marks, where.size, folder)
        write_job(folder, job, train=prepared.train, held_out=prepared.held_out)
        try:
            for _ in train_together(folder, cancel):
                pass
        except TrainingError as error:
            raise TrainingError(f"Process {where.rank} of {where.size}: {error.message}", error.hint) from error
        except CancelledError:
            raise CancelledError(f"Process {where.rank} of {where.size} stopped; process 0 keeps the run.") from None


def check_together(request: FinetuneRequest, prepared: Prepared, where: Place) -> None:
    """Raises UsageError or TrainingError where this machine cannot take its share of the run."""
    if request.auto:
        raise UsageError(
            "--auto looks at the memory of one machine, and all processes need the same settings.",
            "Give settings that fit the smallest machine.",
        )
    if request.ignore_memory:
        return
    config = replace(prepared.config, batch_size=-(-prepared.config.batch_size // where.size))
    settings = settings_of(config, prepared.train, residence_here(prepared.header), request.other)
    weights = prepared.mlx.parameters if prepared.mlx else None
    fit = check_fit(prepared.header, settings, memory=available_memory() // where.beside, folder=weights)
    if not fit.fits:
        need, have = fit.footprint.total / 1e9, fit.available / 1e9
        raise TrainingError(
            f"Process {where.rank} of {where.size} would take about {need:.1f} GB of memory, and {have:.1f} GB may be "
            "used.",
            "Use a smaller --batch-size, --max-length or --rank, or --force.",
        )


def train_together(
    folder: Path, cancel: threading.Event | None = None, share: Collection[int] = ()
) -> Iterator[TuneEvent]:
    """`run_job` for one of several processes, which also ends where others do not come or were stopped."""
    cancel, late, trained = cancel or threading.Event(), threading.Event(), False

    def give_up() -> None:
        late.set()
        cancel.set()

    timer = threading.Timer(PATIENCE, give_up)  # here, because a process that waits for others does nothing else
    timer.daemon = True
    timer.start()
    try:
        for event in run_job(folder, cancel, share):
            if isinstance(event, Ready):
                timer.cancel()
            trained = trained or isinstance(event, Trained)
            yield event
    except CancelledError:
        if not late.is_set():
            raise
        raise TrainingError(
            f"The other processes of the run did not come within {PATIENCE / 60:g} minutes.",
            "Start all of them at once, with `mlx.launch`.",
        ) from None
    finally:
        timer.cancel()
    if not trained:
        raise CancelledError("Stopped, as another process of the run was.")
