"""Every tensor of a model or adapter: its type, what it becomes for MLX, and how far its weights move."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from localllm.errors import AdapterNotFoundError, InvalidModelError, ModelNotFoundError
from localllm.store.registry import Registry
from localllm.weights.convert import Other, becomes
from localllm.weights.gguf import GGUFFile, TensorInfo, read_header
from localllm.weights.measure import measure


@dataclass(frozen=True)
class TensorRow:
    """One tensor. Errors are None for a tensor that MLX cannot hold."""

    name: str
    shape: tuple[int, ...]
    type: str
    becomes: str
    bytes_in_file: int
    bytes_in_mlx: int
    max_error: float | None
    """The greatest change of a weight, measured on all of them; infinite where a weight overflows."""
    relative_error: float | None
    """The same as a part of the tensor's largest weight."""


@dataclass(frozen=True)
class TensorTotal:
    """The sums over all rows, and the worst of them."""

    tensors: int
    bytes_in_file: int
    bytes_in_mlx: int
    max_error: float
    relative_error: float
    worst: str | None
    """The tensor with the greatest relative error; None when no weight moves."""
    unsupported: int
    """Tensors that MLX cannot hold."""


def tensors(registry: Registry, name: str, other: Other = "16bit") -> Iterator[TensorRow | TensorTotal]:
    """A row for each tensor as soon as it is measured, then the total.

    Raises ModelNotFoundError when there is neither a model nor an adapter of that name or path, and InvalidModelError.
    """
    file = read_header(_path(registry, name))
    rows: list[TensorRow] = []
    for info in file.tensors.values():
        rows.append(_row(file, info, other))
        yield rows[-1]
    moved = [row for row in rows if row.max_error]
    worst = max(moved, key=lambda row: _order(row.relative_error), default=None)
    yield TensorTotal(
        len(rows),
        sum(row.bytes_in_file for row in rows),
        sum(row.bytes_in_mlx for row in rows),
        max((row.max_error or 0.0 for row in moved), key=_order, default=0.0),
        (worst.relative_error or 0.0) if worst else 0.0,
        worst.name if worst else None,
        sum(row.max_error is None for row in rows),
    )


def _path(registry: Registry, name: str) -> Path:
    try:
        return registry.adapter(name).path
    except (AdapterNotFoundError, InvalidModelError):
        pass  # then it is a model, or its error is the one to show
    try:
        return registry.model(name).path
    except ModelNotFoundError as e:
        raise ModelNotFoundError(f"There is no model or adapter {name!r}.", e.hint) from e


def _row(file: GGUFFile, info: TensorInfo, other: Other) -> TensorRow:
    target = becomes(info.type, other)
    weights = math.prod(info.shape)
    error = None if target.form == "nothing" else measure(file, info, other)
    return TensorRow(
        info.name,
        info.shape,
        info.type,
        str(target),
        info.nbytes,
        target.nbytes(weights),
        error.largest_error if error else None,
        error.relative if error else None,
    )


def _order(error: float | None) -> float:
    """What is not a number counts as worse than anything."""
    return math.inf if error is None or math.isnan(error) else error
