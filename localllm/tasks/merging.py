"""Merge: a model and adapters in, one GGUF out that needs no adapter.

Without a type, the tensors that the adapters change are quantized anew to the type that they had and all others keep
their bytes. With one, what changed goes into a temporary file as float32 and everything else as it is, and llama.cpp's
own quantizer makes the file from that: no tensor is rounded twice that need not be. A 4-bit tensor can swallow a small
change whole, so how much of it is in the finished file is measured, tensor by tensor, and reported.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from localllm.errors import AdapterError, CancelledError, StorageError, UnsupportedModelError, UsageError
from localllm.store.registry import Registry
from localllm.tasks.opening import adapter_for
from localllm.types import AdapterRef, ModelRef
from localllm.weights.beside import beside, check_room, storage_error
from localllm.weights.entries import NewValue, Typed
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.imatrix import ImportanceMatrix, read_imatrix
from localllm.weights.merge import Plan, measure, merged_blocks, plan
from localllm.weights.writer import Replacement, copying

_SPECIAL = ("phi-3", "phi3", "modern-bert")
"""In general.name these change how llama.cpp reads a vocabulary (load in llama-vocab.cpp)."""


@dataclass(frozen=True)
class MergeRequest:
    """What to merge into what."""

    model: str
    adapters: Sequence[tuple[str, float]]
    """Name or path of each, and the scale it is added with; 1 is as it was trained."""
    out: Path
    type: str | None = None
    """For the whole file, a name that llama.cpp's quantizer knows, such as "Q4_K_M" or "F16"; None keeps all types."""
    imatrix: Path | None = None
    """An importance matrix for what is quantized."""
    overwrite: bool = False


@dataclass(frozen=True)
class MergeStarted:
    """Everything was found to be in order."""

    tensors: int
    """Of the model."""
    changed: int
    """Those that the adapters change."""


@dataclass(frozen=True)
class MergeProgress:
    """One more step is done: a tensor copied, quantized or measured."""

    done: int
    total: int
    tensor: str


@dataclass(frozen=True)
class Merged:
    """The file is in its place."""

    path: Path
    bytes: int
    changed: int
    """Tensors that the adapters changed."""
    seconds: float
    kept: float
    """Share of the change that rounding left in the tensor that lost most of it: 1 is all, 0 none; it may exceed 1."""
    kept_tensor: str
    """That tensor."""
    cosine: float
    """The least, over tensors, of the cosine between the change that was wanted and the one that was stored. Unlike
    `kept` it falls with the noise of rounding, which a base that is quantized for the first time has anyway."""
    kept_overall: float
    """As `kept`, of all tensors that the adapters changed taken together."""


MergeEvent = MergeStarted | MergeProgress | Merged


@dataclass(frozen=True)
class _Job:
    """A request whose names are resolved and whose files fit."""

    request: MergeRequest
    model: ModelRef
    adapters: Sequence[tuple[AdapterRef, float]]
    plan: Plan
    imatrix: ImportanceMatrix | None
    metadata: Mapping[str, NewValue | None]


def merge(registry: Registry, request: MergeRequest, cancel: threading.Event | None = None) -> Iterator[MergeEvent]:
    """Merge and write `request.out`. The last event is Merged; until then there is no such file, or the old one.

    Raises UsageError, ModelError, AdapterError, DataError and StorageError before anything is written; StorageError,
    EngineError and CancelledError, nothing then being kept.
    """
    start = time.perf_counter()
    job = _prepare(registry, request)
    yield MergeStarted(len(job.plan.base.tensors), len(job.plan.changes))
    yield from _requantized(job, cancel) if request.type else _in_own_types(job, cancel)
    name, least = job.plan.least_kept()
    yield Merged(
        path=request.out,
        bytes=request.out.stat().st_size,
        changed=len(job.plan.changes),
        seconds=time.perf_counter() - start,
        kept=least.kept,
        kept_tensor=name,
        cosine=min(survival.cosine for survival in job.plan.survival.values()),
        kept_overall=job.plan.overall().kept,
    )


def _prepare(registry: Registry, request: MergeRequest) -> _Job:
    from localllm.engine.quantize import check_chunk, check_imatrix, file_type

    if request.type:
        file_type(request.type)
    if not request.adapters:
        raise UsageError("There is no adapter to merge.", "Name at least one.")
    model = registry.model(request.model)
    adapters = [(adapter_for(registry, name, model), scale) for name, scale in request.adapters]
    _check_target(request, [model.path, *(adapter.path for adapter, _ in adapters)])
    base = read_header(model.path)
    if base.kind != "model":
        raise UnsupportedModelError(f"{base.path} is a GGUF {base.kind}, not a model.", "Name the base with --model.")
    made = plan(base, [(read_header(adapter.path), scale) for adapter, scale in adapters])
    if not made.changes:
        raise AdapterError("The adapters change nothing: all their numbers, or the scales, are zero.")
    matrix = None
    if request.imatrix:
        check_imatrix(base, request.imatrix)
        matrix = read_imatrix(request.imatrix)
    for name in made.changes if not request.type else ():
        info = base.tensors[name]
        known = matrix is not None and matrix.of(name, info.shape) is not None
        check_chunk((1, info.shape[-1]), info.type, known)
    return _Job(request, model, adapters, made, matrix, _metadata(registry, model, base, adapters))


def _check_target(request: MergeRequest, sources: Sequence[Path]) -> None:
    out = request.out
    if out.is_dir():
        raise StorageError(f"{out} is a folder.", "Give the name of a file in it.")
    if out.exists():
        if any(out.samefile(source) for source in sources if source.exists()):
            raise UsageError(f"{out} would replace what is merged.", "Choose another name.")
        if not request.overwrite:
            raise StorageError(f"There is already a file {out}.", "Choose another name, or add --overwrite.")


def _metadata(
    registry: Registry, model: ModelRef, base: GGUFFile, adapters: Sequence[tuple[AdapterRef, float]]
) -> dict[str, NewValue | None]:
    """What the merged file says of itself; an earlier merge is replaced, and named by the base's hash alone."""
    names = [adapter.name for adapter, _ in adapters]
    added = " + ".join(names)
    old = base.metadata.get("general.name", model.name)
    dropped: dict[str, NewValue | None] = {key: None for key in base.metadata if key.startswith("adapter.")}
    if not any(word in added.lower() for word in _SPECIAL):
        dropped["general.name"] = f"{old} + {added}"
    return dropped | {
        "localllm.merged.base.name": model.name,
        "localllm.merged.base.sha256": registry.sha256(model.path),
        "localllm.merged.adapters": Typed("string", names),
        "localllm.merged.sha256": Typed("string", [registry.sha256(adapter.path) for adapter, _ in adapters]),
        "localllm.merged.scales": Typed("f32", [scale for _, scale in adapters]),
    }


def _in_own_types(job: _Job, cancel: threading.Event | None) -> Iterator[MergeEvent]:
    base = job.plan.base
    changed = {name: _replacement(job, name, base.tensors[name].type) for name in job.plan.changes}
    for step in copying(base, job.request.out, changed=changed, metadata=job.metadata, cancel=cancel):
        yield MergeProgress(step.done, step.total, step.tensor)


def _requantized(job: _Job, cancel: threading.Event | None) -> Iterator[MergeEvent]:
    """Two files stand beside the target while it is made, and are gone afterwards."""
    from localllm.engine.quantize import file_type, least_bytes, quantizing

    request, tensors, changes = job.request, len(job.plan.base.tensors), job.plan.changes
    assert request.type is not None
    mixed, final = beside(request.out), beside(request.out)
    in_float32 = sum(4 * math.prod(job.plan.base.tensors[name].shape) for name in changes)
    check_room(request.out, in_float32 + least_bytes(job.plan.base, file_type(request.type)), " at least")
    total = 2 * tensors + len(changes)
    changed = {name: _replacement(job, name, "F32") for name in changes}
    try:
        for copied in copying(job.plan.base, mixed, changed=changed, metadata=job.metadata, cancel=cancel):
            yield MergeProgress(copied.done, total, copied.tensor)
        for step in quantizing(mixed, final, request.type, imatrix=request.imatrix, cancel=cancel):
            yield MergeProgress(tensors + step.done, total, step.tensor)
        mixed.unlink()
        stored = read_header(final)
        for done, name in enumerate(changes, 1):
            if cancel is not None and cancel.is_set():
                raise CancelledError("Stopped; nothing was written.")
            measure(job.plan, name, stored)
            yield MergeProgress(2 * tensors + done, total, name)
        os.replace(final, request.out)
    except OSError as error:
        raise storage_error(request.out, error) from error
    finally:
        for path in (mixed, final):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def _replacement(job: _Job, name: str, kind: str) -> Replacement:
    from localllm.engine.quantize import quantize_chunk

    shape = job.plan.base.tensors[name].shape
    importance = job.imatrix.of(name, shape) if job.imatrix and kind != "F32" else None
    quantizer = quantize_chunk if kind != "F32" else _as_float32
    return Replacement(kind, shape, partial(merged_blocks, job.plan, name, kind, quantizer, importance))


def _as_float32(values: np.ndarray, _kind: str, _importance: np.ndarray | None) -> bytes:
    return values.tobytes()
