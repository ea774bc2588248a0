"""Adapters added into the tensors of their base, piece by piece.

A LoRA changes a matrix W to W + s B A. In a GGUF LoRA (llama-adapter.cpp, and build_lora_mm and build_inp_embd in
llama-graph.cpp), with s = scale * alpha / rank of that pair, or the scale alone where alpha is missing or zero:

    linear      T.lora_a (rank, in)           T.lora_b (out, rank)           W + s B A
    experts     T.lora_a (experts, rank, in)  T.lora_b (experts, out, rank)  the same for each expert
    embedding   T.lora_a (vocabulary, rank)   T.lora_b (width, rank)         W + s A Bᵀ

Where the output has no tensor of its own, it is the embedding, and a change of the embedding changes both: llama.cpp
cannot attach such an adapter, and merging is the way that works.

Several adapters are added in float32, in their order, and what results is quantized once. Held at a time: PIECE weights
in five float32 arrays, the two factors of each adapter for one expert of one tensor, and the blocks of the piece.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from localllm.errors import AdapterError, AdapterMismatchError
from localllm.weights.ggml import BY_NAME
from localllm.weights.gguf import GGUFFile, TensorInfo
from localllm.weights.quant import dequantize, read_blocks

PIECE = 1 << 20
"""Weights that are merged at a time; their float32 values take 4 MiB."""
_PRODUCT = 1 << 18
"""Multiplications in one product: OpenBLAS does so many on one thread (interface/gemm.c). After larger ones its other
threads spin for a while on the cores that quantizing wants, and merging took more than twice the time."""
Floats = NDArray[np.float32]
Factors = tuple[Floats, Floats, float]
"""A (rank, columns), B (rows, rank) and the scale s: the change is s B A."""
Quantizer = Callable[[Floats, str, Floats | None], bytes]
"""Rows (rows, columns), a ggml type and perhaps the importance (columns,) to the rows' blocks."""


@dataclass(frozen=True)
class Change:
    """What one adapter does to one tensor of the base."""

    adapter: GGUFFile
    a: TensorInfo
    b: TensorInfo
    scale: float
    """s: the person's scale times alpha / rank."""
    embedding: bool

    def factors(self, expert: int = 0) -> Factors:
        """A, B and s, for one matrix of a stack. Raises AdapterError for numbers that are not finite."""
        a, b = _matrix(self.adapter, self.a, expert), _matrix(self.adapter, self.b, expert)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            message = f"The adapter {self.adapter.path} holds numbers in {self.a.name} or _b that are not finite."
            raise AdapterError(message, "Train or convert it again.")
        return (np.ascontiguousarray(b.T), a, self.scale) if self.embedding else (a, b, self.scale)

    def changes_anything(self) -> bool:
        """Whether the change is not zero throughout, as far as one factor alone says."""
        return self.scale != 0 and all(bool(read_blocks(self.adapter, half).any()) for half in (self.a, self.b))


@dataclass
class Survival:
    """How much of a change is in what was stored: sums over the weights of a tensor."""

    wanted: float = 0.0
    """Of the squares of the change that was wanted, d."""
    stored: float = 0.0
    """Of the squares of the change that was stored, c: the merged tensor as stored, less the base."""
    shared: float = 0.0
    """Of the products c d."""

    @property
    def kept(self) -> float:
        """The share of d in c, c·d / d·d: 1 when rounding lost nothing, 0 when it swallowed all of it."""
        return self.shared / self.wanted if self.wanted else 1.0

    @property
    def cosine(self) -> float:
        """Between c and d: 1 when nothing but d was stored; the noise of rounding lowers it too."""
        norm = math.sqrt(self.wanted) * math.sqrt(self.stored)
        return self.shared / norm if norm else float(not self.wanted)

    def add(self, wanted: Floats, stored: Floats) -> None:
        """Take more weights into account: the change d that was wanted of them, and c that was stored."""
        d, c = wanted.reshape(-1), stored.reshape(-1)
        self.wanted += float(d @ d)
        self.stored += float(c @ c)
        self.shared += float(c @ d)


@dataclass(frozen=True)
class Plan:
    """Which tensors of the base change, and by what."""

    base: GGUFFile
    changes: Mapping[str, Sequence[Change]]
    survival: dict[str, Survival] = field(default_factory=dict)
    """Filled as tensors are merged."""

    def overall(self) -> Survival:
        """All tensors as one."""
        total = Survival()
        for survival in self.survival.values():
            total.wanted += survival.wanted
            total.stored += survival.stored
            total.shared += survival.shared
        return total

    def least_kept(self) -> tuple[str, Survival]:
        """The tensor that lost most of its change."""
        return min(self.survival.items(), key=lambda item: item[1].kept)


def plan(base: GGUFFile, adapters: Sequence[tuple[GGUFFile, float]]) -> Plan:
    """Read what the adapters change; changes that are zero throughout are left out.

    Raises AdapterError for what is no LoRA, and AdapterMismatchError, naming the tensor and both shapes, for one that
    does not fit the base.
    """
    changes: dict[str, list[Change]] = {}
    for adapter, scale in adapters:
        _check(adapter, base)
        for name, change in _pairs(adapter, base, scale):
            if change.changes_anything():
                changes.setdefault(name, []).append(change)
    return Plan(base, changes)


def merged(base: Floats, factors: Sequence[Factors]) -> Floats:
    """(rows, columns) of the base with the adapters added; each B has the same rows."""
    return base + _delta(base.shape, factors, slice(None)) if factors else base


def merged_blocks(
    made: Plan, name: str, kind: str, quantizer: Quantizer, importance: Floats | None = None
) -> Iterator[bytes]:
    """The merged tensor as blocks of `kind`, piece by piece; `made.survival` has its entry at the end.

    `importance` is (columns,), or (experts, columns) for a stack.
    """
    info = made.base.tensors[name]
    survival = Survival()
    for expert, rows, factors in _pieces(made, name):
        base = _rows(made.base, info, expert, rows)
        delta = _delta(base.shape, factors, rows)
        weights = None if importance is None else importance.reshape(-1, info.shape[-1])[expert]
        blocks = quantizer(base + delta, kind, weights)
        raw = np.frombuffer(blocks, np.uint8).reshape(-1, BY_NAME[kind].nbytes)
        survival.add(delta, dequantize(raw, kind, base.shape) - base)
        yield blocks
    made.survival[name] = survival


def measure(made: Plan, name: str, stored: GGUFFile) -> None:
    """Fill in the tensor's survival from the finished file it was stored in, whatever its type is there."""
    survival = Survival()
    for expert, rows, factors in _pieces(made, name):
        base = _rows(made.base, made.base.tensors[name], expert, rows)
        survival.add(_delta(base.shape, factors, rows), _rows(stored, stored.tensors[name], expert, rows) - base)
    made.survival[name] = survival


def _pieces(made: Plan, name: str) -> Iterator[tuple[int, slice, list[Factors]]]:
    """Expert, rows and factors of each piece of a tensor, in the order of its bytes."""
    *experts, rows, columns = made.base.tensors[name].shape
    step = max(1, PIECE // columns)
    for expert in range(math.prod(experts)):
        factors = [change.factors(expert) for change in made.changes[name]]
        for start in range(0, rows, step):
            yield expert, slice(start, min(start + step, rows)), factors


def _delta(shape: tuple[int, ...], factors: Sequence[Factors], rows: slice) -> Floats:
    total = np.zeros(shape, np.float32)
    for a, b, scale in factors:
        scaled = b[rows] * np.float32(scale)
        step = max(1, _PRODUCT // a.size)
        for first in range(0, len(total), step):
            total[first : first + step] += scaled[first : first + step] @ a
    return total


def _rows(file: GGUFFile, info: TensorInfo, expert: int, rows: slice) -> Floats:
    """Rows of one matrix of a tensor as float32."""
    *_, height, columns = info.shape
    in_row = columns // BY_NAME[info.type].weights
    first = expert * height
    blocks = read_blocks(file, info)[(first + rows.start) * in_row : (first + rows.stop) * in_row]
    return dequantize(blocks, info.type, (rows.stop - rows.start, columns))


def _matrix(file: GGUFFile, info: TensorInfo, expert: int) -> Floats:
    height = info.shape[-2] if len(info.shape) > 1 else 1
    shape = (*info.shape[:-2], height, info.shape[-1])
    return _rows(file, TensorInfo(info.name, shape, info.type, info.offset, info.nbytes), expert, slice(0, height))


def _check(adapter: GGUFFile, base: GGUFFile) -> None:
    if adapter.kind != "adapter" or adapter.metadata.get("adapter.type") != "lora":
        raise AdapterError(f"{adapter.path} is a GGUF, but not a LoRA adapter.", "A model is chosen with --model.")
    if adapter.architecture != base.architecture:
        raise AdapterMismatchError(
            f"The adapter {adapter.path} is for {adapter.architecture} models; {base.path.name} is a "
            f"{base.architecture} model."
        )
    if "adapter.alora.invocation_tokens" in adapter.metadata:
        message = f"The adapter {adapter.path} is an activated LoRA (aLoRA), which works only after a certain text."
        raise AdapterError(message, "Merged, it would change every answer.")


def _pairs(adapter: GGUFFile, base: GGUFFile, scale: float) -> Iterator[tuple[str, Change]]:
    alpha = adapter.metadata.get("adapter.lora.alpha", 0.0)
    if not isinstance(alpha, int | float) or not math.isfinite(alpha) or not math.isfinite(scale):
        raise AdapterError(f"The adapter {adapter.path} has alpha {alpha} and scale {scale}.", "Convert it again.")
    for name, info in adapter.tensors.items():
        target, _, half = name.rpartition(".")
        if half not in ("lora_a", "lora_b"):
            hint = "Norms and biases of an adapter are merged with the program that made it."
            raise AdapterError(f"The adapter {adapter.path} holds {name}, which is not a LoRA matrix.", hint)
        if half == "lora_a":
            b = adapter.tensors.get(f"{target}.lora_b")
            rank = _check_shapes(adapter, target, info, b, base)
            assert b is not None
            embedding = target.endswith("token_embd.weight")  # as llama-adapter.cpp asks
            yield target, Change(adapter, info, b, scale * alpha / rank if alpha else scale, embedding)
        elif f"{target}.lora_a" not in adapter.tensors:
            raise AdapterError(f"The adapter {adapter.path} holds {name} without its lora_a.", "Convert it again.")


def _check_shapes(adapter: GGUFFile, target: str, a: TensorInfo, b: TensorInfo | None, base: GGUFFile) -> int:
    """The pair's rank. ggml writes a shape without the ones at its slow end, so these may be missing."""
    if b is None:
        raise AdapterError(f"The adapter {adapter.path} holds {a.name} without its lora_b.", "Convert it again.")
    weight = base.tensors[target].shape if target in base.tensors else ()
    if len(weight) < 2:
        what = "is not a matrix there" if weight else "that does not have"
        raise AdapterMismatchError(f"The adapter {adapter.path} changes {target} of {base.path.name}: {what}.")
    *experts, out, width = weight
    rank = b.shape[-1]
    embedding = target.endswith("token_embd.weight")
    wanted_a = (out, rank) if embedding else (*experts, rank, width)
    wanted_b = (width, rank) if embedding else (*experts, out, rank)
    for info, wanted in ((a, wanted_a), (b, wanted_b)):
        if _trimmed(info.shape) != _trimmed(wanted):
            raise AdapterMismatchError(
                f"{info.name} of {adapter.path} has shape {info.shape}, but {target} in {base.path.name} has {weight}: "
                f"at rank {rank} it must be {wanted}."
            )
    return rank


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    first = next((i for i, size in enumerate(shape) if size != 1), len(shape) - 1)
    return shape[first:]
