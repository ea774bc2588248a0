"""Where MLX computes, and how to make it fast there: Metal, CUDA, or a CPU with a proper BLAS.

The mlx-cpu wheel links the reference BLAS, some 60 times slower than OpenBLAS. Its BLAS symbols are ordinary undefined
ones, so a library that is loaded with RTLD_GLOBAL *before* `import mlx.core` takes their place: `prepare` does that.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import importlib.util
import math
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["metal", "cuda", "cpu"]
Residence = Literal["quantized", "float32", "streamed"]
"""How frozen weights are held: as blocks for MLX's quantized kernels, as float32, or as blocks that are made float32
whenever they are multiplied."""
_SHIM = Path(__file__).with_name("blas_shim.c")


@dataclass(frozen=True)
class Device:
    """What MLX runs on in this process."""

    kind: Kind
    blas: str
    """The library behind matrix products: "scipy-openblas32", "libopenblas", "built in"."""
    warning: str = ""
    """Why it is slower than it could be; empty when it is not."""
    threads: int | None = None
    """Of the BLAS, where it was we who chose."""


def prepare(cache: Path, threads: int | None = None) -> Device:
    """Load the fast BLAS where one is needed, then MLX. `cache` is where the compiled shim is kept.

    `threads` is how many the BLAS is to have, for results that are the same to the bit as those of another process;
    without it OPENBLAS_NUM_THREADS says so, or a measurement. Must run before anything imports mlx.core.
    """
    blas, warning = "built in", ""
    if sys.platform == "linux":
        blas, warning, threads = _load_fast_blas(cache, threads)
    import mlx.core as mx

    if mx.metal.is_available():
        return Device("metal", "built in")
    if hasattr(mx, "cuda") and mx.cuda.is_available():
        return Device("cuda", "built in")
    mx.set_default_device(mx.cpu)
    return Device("cpu", blas, warning, threads)


def residence(kind: Kind, float_bytes: int = 0, memory: int | None = None) -> Residence:
    """How the frozen weights are held, `float_bytes` being their size as float32 and `memory` that of the machine.

    Quantized with 16-bit scales where MLX has quantized kernels. On a CPU those run at 2 GFLOP/s and OpenBLAS's float32
    products at 100 and more: float32, or streamed where that would take more than half of the memory.
    """
    if kind != "cpu":
        return "quantized"
    memory = memory or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return "streamed" if float_bytes > memory // 2 else "float32"


def _load_fast_blas(cache: Path, threads: int | None) -> tuple[str, str, int | None]:
    """Name of the library that was loaded, a warning when it is the slow one, and its threads."""
    if "mlx.core" in sys.modules:
        return "built in", "MLX was imported before the fast BLAS, so training will be slow.", None
    try:
        library = _scipy_openblas()
        shim = _compiled_shim(cache, library)
        openblas = ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        if threads or "OPENBLAS_NUM_THREADS" not in os.environ:
            openblas.scipy_openblas_set_num_threads(threads or _best_threads(openblas))
        ctypes.CDLL(str(shim), ctypes.RTLD_GLOBAL)
        return "scipy-openblas32", "", int(openblas.scipy_openblas_get_num_threads())
    except (OSError, ImportError, subprocess.SubprocessError) as error:
        reason = str(error)
    if (system := ctypes.util.find_library("openblas")) is not None:
        try:
            ctypes.CDLL(system, ctypes.RTLD_GLOBAL)
            return "libopenblas", "", None
        except OSError as error:
            reason = str(error)
    return (
        "built in",
        f"Training will be slow: no fast BLAS could be loaded ({reason}). It needs a C compiler (cc) once.",
        None,
    )


def _best_threads(openblas: ctypes.CDLL) -> int:
    """All cores, half of them or one: whichever multiplies fastest just now.

    Threads of OpenBLAS wait for each other by spinning, so on a busy machine two can be four times slower than one. The
    results of products with an inner width divisible by 8 do not depend on the number.
    """
    import numpy as np

    a = np.ones((512, 512), np.float32)
    pointer, one = a.ctypes.data_as(ctypes.c_void_p), ctypes.c_float(1)
    out, zero = np.empty_like(a), ctypes.c_float(0)
    target = out.ctypes.data_as(ctypes.c_void_p)
    cores = os.cpu_count() or 1
    timings: dict[int, float] = {}
    for turn in range(4):  # the first one starts the threads and does not count
        for threads in {cores, max(1, cores // 2), 1}:
            openblas.scipy_openblas_set_num_threads(threads)
            start = time.perf_counter()
            for _ in range(4):  # row-major (101), neither transposed (111): 3 ms each on one core
                shape = (101, 111, 111, 512, 512, 512)
                openblas.scipy_cblas_sgemm(*shape, one, pointer, 512, pointer, 512, zero, target, 512)
            if turn:
                timings[threads] = min(timings.get(threads, math.inf), time.perf_counter() - start)
    return min(timings, key=lambda threads: timings[threads])


def _scipy_openblas() -> Path:
    """The shared library inside the scipy-openblas32 package."""
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or spec.origin is None:
        raise ImportError("the package scipy-openblas32 is not installed")
    return Path(spec.origin).parent / "lib" / "libscipy_openblas.so"


def _compiled_shim(cache: Path, library: Path) -> Path:
    """The shim as a shared library, compiled once for each version of its source and of OpenBLAS."""
    stat = library.stat()
    identity = f"{platform.machine()} {stat.st_size} {stat.st_mtime_ns}".encode()
    digest = hashlib.sha256(_SHIM.read_bytes() + identity).hexdigest()[:16]
    target = cache / f"blas-shim-{digest}.so"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        command = [os.environ.get("CC", "cc"), "-O2", "-shared", "-fPIC", "-o", str(part), str(_SHIM), str(library)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target
