"""llama.cpp's own quantizer: rows of floats to blocks, here, and whole files, in a child process.

Blocks are those of `ggml_quantize_chunk` (ggml/src/ggml.c), so a tensor gets the very bytes that llama-quantize gives
it. Files go through `llama_model_quantize`, which cannot be stopped and may abort the process that calls it: the child
(engine/quantizer.py) can be ended, and its end is an error here.
"""

from __future__ import annotations

import ctypes
import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from localllm.engine.native import library
from localllm.engine.threads import physical_cores
from localllm.errors import DataError, UnsupportedModelError, UsageError
from localllm.weights.ggml import BY_NAME, TYPES
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.imatrix import read_imatrix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLIND = frozenset({"IQ1_M", "IQ1_S", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ3_XXS"})
"""Types that llama.cpp gives no weight without an importance matrix (tensor_requires_imatrix in llama-quant.cpp)."""
_NOT_STORED = frozenset({"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"})  # what ggml_quantize_chunk does not make
_NUMBER = {block.name: number for number, block in TYPES.items() if block.name not in _NOT_STORED}
_PIECE = 1 << 18  # weights that a thread takes at a time

FILE_TYPES = {
    "F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16", "Q8_0": "MOSTLY_Q8_0", "Q6_K": "MOSTLY_Q6_K",
    "Q5_K": "MOSTLY_Q5_K_M", "Q5_K_M": "MOSTLY_Q5_K_M", "Q5_K_S": "MOSTLY_Q5_K_S", "Q5_1": "MOSTLY_Q5_1",
    "Q5_0": "MOSTLY_Q5_0", "Q4_K": "MOSTLY_Q4_K_M", "Q4_K_M": "MOSTLY_Q4_K_M", "Q4_K_S": "MOSTLY_Q4_K_S",
    "Q4_1": "MOSTLY_Q4_1", "Q4_0": "MOSTLY_Q4_0", "IQ4_NL": "MOSTLY_IQ4_NL", "IQ4_XS": "MOSTLY_IQ4_XS",
    "MXFP4_MOE": "MOSTLY_MXFP4_MOE", "Q3_K": "MOSTLY_Q3_K_M", "Q3_K_L": "MOSTLY_Q3_K_L", "Q3_K_M": "MOSTLY_Q3_K_M",
    "Q3_K_S": "MOSTLY_Q3_K_S", "IQ3_M": "MOSTLY_IQ3_M", "IQ3_S": "MOSTLY_IQ3_S", "IQ3_XS": "MOSTLY_IQ3_XS",
    "IQ3_XXS": "MOSTLY_IQ3_XXS", "Q2_K": "MOSTLY_Q2_K", "Q2_K_S": "MOSTLY_Q2_K_S", "IQ2_M": "MOSTLY_IQ2_M",
    "IQ2_S": "MOSTLY_IQ2_S", "IQ2_XS": "MOSTLY_IQ2_XS", "IQ2_XXS": "MOSTLY_IQ2_XXS", "TQ2_0": "MOSTLY_TQ2_0",
    "TQ1_0": "MOSTLY_TQ1_0", "IQ1_M": "MOSTLY_IQ1_M", "IQ1_S": "MOSTLY_IQ1_S", "Q1_0": "MOSTLY_Q1_0",
    "COPY": "ALL_F32",
}  # fmt: skip
"""Names that llama-quantize knows -> llama.cpp's LLAMA_FTYPE_*. Q2_0 is left out: weights/ggml.py lacks it."""


@dataclass(frozen=True)
class Quantizing:
    """llama.cpp has come to this tensor."""

    done: int
    total: int
    tensor: str


def quantize_chunk(
    values: NDArray[np.float32], kind: str, importance: NDArray[np.float32] | None = None, n_threads: int | None = None
) -> bytes:
    """Rows (rows, columns) as blocks of the ggml type `kind`, row after row; `importance` is (columns,).

    The result does not depend on the number of threads. F16 and BF16 round to nearest, ties to even. A value too large
    for its type is refused rather than clamped: a weight of 65504 in place of a greater one would be another model.

    Raises UnsupportedModelError for a type that cannot be made, rows that are not whole blocks, a type that needs an
    importance matrix and has none, and values that are not finite or overflow.
    """
    import numpy as np

    check_chunk(values.shape, kind, importance is not None)
    values = np.ascontiguousarray(values, np.float32)
    rows, columns = values.shape
    block = BY_NAME[kind]
    row_bytes = columns // block.weights * block.nbytes
    out = np.empty((rows, row_bytes), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    if weights is not None and weights.shape != (columns,):
        raise DataError(f"The importance matrix has the shape {weights.shape} for rows of {columns}.")
    quantize, valid = _functions()
    pointer = ctypes.c_void_p(None if weights is None else weights.ctypes.data)

    def work(first: int) -> bool:
        part, made = values[first : first + step], out[first : first + step]
        if not np.isfinite(part).all():
            return False
        quantize(_NUMBER[kind], part.ctypes.data, made.ctypes.data, 0, len(part), columns, pointer)
        return bool(valid(_NUMBER[kind], made.ctypes.data, made.nbytes))

    step = max(1, _PIECE // columns)
    with ThreadPoolExecutor(n_threads or _cores()) as pool:  # native code runs without the interpreter's lock
        if not all(pool.map(work, range(0, rows, step))):
            raise UnsupportedModelError(
                f"A weight is not a finite number that {kind} can hold.",
                "Look at the adapter's scale; F32 and BF16 hold larger numbers.",
            )
    return out.tobytes()


def quantize_model(
    source: Path,
    target: Path,
    kind: str,
    *,
    imatrix: Path | None = None,
    requantize: bool = True,
    pure: bool = False,
    n_threads: int | None = None,
    cancel: Event | None = None,
) -> None:
    """Run `quantizing` to its end."""
    steps = quantizing(
        source, target, kind, imatrix=imatrix, requantize=requantize, pure=pure, n_threads=n_threads, cancel=cancel
    )
    deque(steps, maxlen=0)


def quantizing(
    source: Path,
    target: Path,
    kind: str,
    *,
    imatrix: Path | None = None,
    requantize: bool = True,
    pure: bool = False,
    n_threads: int | None = None,
    cancel: Event | None = None,
) -> Iterator[Quantizing]:
    """Write `source` anew as `kind` (see FILE_TYPES; case does not matter), yielding as llama.cpp comes to each tensor.

    `imatrix` is an importance matrix in either form; `requantize` allows tensors that are quantized already; `pure`
    gives every tensor the same type. The file appears, whole, at the end; until then it has another name beside it.

    Raises UsageError, ModelError, DataError, EngineError with llama.cpp's complaint, StorageError and CancelledError;
    nothing is then left of the new file.
    """
    from localllm.engine.quantizer import Job, run_job

    file = read_header(source)
    name = file_type(kind)
    _check_files(file, target)
    if imatrix is not None:
        check_imatrix(file, imatrix)
    job = Job(str(source), str(target), name, str(imatrix) if imatrix else None, requantize, pure)
    for done, total, tensor in run_job(job, n_threads or physical_cores(), least_bytes(file, name), cancel):
        yield Quantizing(done, total, tensor)


def file_type(kind: str) -> str:
    """The name as FILE_TYPES has it. Raises UsageError with the nearest ones."""
    if (name := kind.upper()) in FILE_TYPES:
        return name
    near = get_close_matches(name, FILE_TYPES, n=3, cutoff=0.5) or ["Q4_K_M", "Q8_0", "F16"]
    raise UsageError(f"{kind!r} is no type of model file.", f"Try {', '.join(near)}.")


def least_bytes(file: GGUFFile, name: str) -> int:
    """What the file takes at least as a type of FILE_TYPES: mixed types, and rows that fit no block, only take more."""
    name = "IQ2_XS" if name == "IQ2_S" else name  # what a file of that name holds most (llama_ftype_get_default_type)
    block = BY_NAME.get(name) or BY_NAME.get(name.rpartition("_")[0])
    weights = sum(
        info.nbytes // BY_NAME[info.type].nbytes * BY_NAME[info.type].weights for info in file.tensors.values()
    )
    return weights // block.weights * block.nbytes if block else 0


def check_chunk(shape: tuple[int, ...], kind: str, has_importance: bool) -> None:
    """Raises UnsupportedModelError unless `quantize_chunk` takes values of that shape."""
    if kind not in _NUMBER:
        raise UnsupportedModelError(f"Tensors of type {kind} cannot be written.", "Choose another --type.")
    if len(shape) != 2 or shape[1] % BY_NAME[kind].weights:
        raise UnsupportedModelError(
            f"{kind} stores {BY_NAME[kind].weights} weights of a row at a time, which the shape {shape} does not allow."
        )
    if kind in BLIND and not has_importance:
        raise UnsupportedModelError(
            f"{kind} has so few bits that llama.cpp needs an importance matrix to spend them well.",
            "Give one with --imatrix, or choose another --type.",
        )


def _check_files(file: GGUFFile, target: Path) -> None:
    if file.kind != "model":
        raise UnsupportedModelError(f"{file.path} is a GGUF {file.kind}, not a model.", "Only models are quantized.")
    if target.exists() and target.samefile(file.path):
        raise UsageError(f"{target} would replace the model that is read.", "Choose another name.")


def check_imatrix(file: GGUFFile, path: Path) -> None:
    """Raises DataError for a matrix of another model, which llama.cpp would use for nothing or stop at half-way."""
    matrix = read_imatrix(path)
    fitting = [matrix.of(info.name, info.shape) is not None for info in file.tensors.values() if len(info.shape) > 1]
    if not any(fitting):
        raise DataError(f"The importance matrix says nothing of the tensors of {file.path}.", path=path)


@functools.cache
def _cores() -> int:
    return physical_cores()  # asks the system, on some of them by running a program


def _functions() -> tuple[Any, Any]:
    """ggml_quantize_chunk and ggml_validate_row_data of the library that llama-cpp-python loads."""
    lib = library().llama_cpp._lib  # its own handle: the symbols of what it links to are found through it
    quantize, valid = lib.ggml_quantize_chunk, lib.ggml_validate_row_data
    long, pointer = ctypes.c_int64, ctypes.c_void_p
    quantize.argtypes, quantize.restype = [ctypes.c_int, pointer, pointer, long, long, long, pointer], ctypes.c_size_t
    valid.argtypes, valid.restype = [ctypes.c_int, pointer, ctypes.c_size_t], ctypes.c_bool
    return quantize, valid
