"""Which matrices llama.cpp copies into another order of blocks, that of this CPU's widest instructions.

The file's own blocks are read once for that and stay mapped, so that both are resident; the system takes the file's
pages back when it needs them. From ggml_repack_get_optimal_repack_type (ggml-cpu/repack.cpp). A GPU takes all layers
instead, as Metal does, and nothing is copied.
"""

from __future__ import annotations

import platform
import sys
from functools import cache
from pathlib import Path

from localllm.weights.gguf import GGUFFile, TensorInfo

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
_ROWS = 8
"""That are interleaved, at most: matrices with another number of rows stay as they are."""
_LOOKED_UP = (EMBEDDING, "position_embd.weight", "token_types.weight")
"""Of these llama.cpp takes rows, which it can only from the order of the file."""
_AVX2 = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
_ARM = _AVX2 | {"Q5_K", "Q6_K", "Q8_0", "Q1_0"}


@cache
def types_here() -> frozenset[str]:
    """The types of tensors that are copied on this machine."""
    try:
        cpu = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        cpu = ""
    return types_of(sys.platform, platform.machine(), cpu)


def types_of(system: str, machine: str, cpu: str) -> frozenset[str]:
    """The same of any machine; `cpu` is what Linux says of its processor."""
    if system != "linux":
        return frozenset()
    flags = set(cpu.split())
    if machine in ("aarch64", "arm64"):
        return _ARM if "asimddp" in flags else frozenset()
    if "avx2" not in flags:
        return frozenset()
    return _AVX2 | {"Q2_K"} if "avx512f" in flags else _AVX2


def copied_bytes(file: GGUFFile, types: frozenset[str]) -> int:
    """Bytes of the copies of a model's matrices."""
    copied = sum(info.nbytes for info in file.tensors.values() if _is_copied(info, types))
    shared = file.tensors.get(EMBEDDING)
    if shared and OUTPUT not in file.tensors and shared.type in types and not shared.shape[0] % _ROWS:
        copied += shared.nbytes  # an output of its own, in the other order
    return copied


def _is_copied(info: TensorInfo, types: frozenset[str]) -> bool:
    is_matrix = info.name.endswith(".weight") and len(info.shape) > 1 and info.name not in _LOOKED_UP
    return is_matrix and info.type in types and not info.shape[-2] % _ROWS
