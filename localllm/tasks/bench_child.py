"""One measured import of a GGUF in a process of its own, ours or that of transformers; any interpreter can run this.

    PYTHON bench_child.py localllm FILE OTHER
    PYTHON bench_child.py streaming FILE OTHER
    PYTHON bench_child.py transformers FILE

Writes two JSON lines: {"ready": true, ...} before the work, when everything is imported, and the result after it. Both
have `anonymous` and `resident`, bytes of memory at that moment, null where the system does not say. Only the standard
library is imported before it is known what runs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

MISSING = "missing"
_Work = Callable[[], dict[str, Any]]


def memory() -> dict[str, int | None]:
    """Bytes of this process in memory: what it has written itself, and all of it with the mapped pages of files."""
    try:
        with open("/proc/self/status") as status:
            fields = dict(line.split(":", 1) for line in status)
    except OSError:  # there is no such file on macOS
        return {"anonymous": None, "resident": None}
    return {"anonymous": _kib(fields["RssAnon"]), "resident": _kib(fields["VmRSS"])}


def _kib(text: str) -> int:
    return int(text.split()[0]) * 1024


def prepare_ours(path: str, other: str) -> _Work:
    """Read the header and convert every tensor; all of them are kept, as a loaded model keeps them."""
    return _ours(path, other, keep=True)


def prepare_streaming(path: str, other: str) -> _Work:
    """The same with each tensor let go before the next, as when it is handed on: the work without memory for all."""
    return _ours(path, other, keep=False)


def _ours(path: str, other: str, *, keep: bool) -> _Work:
    from pathlib import Path

    import localllm
    from localllm.weights.affine import Affine
    from localllm.weights.chunks import workers
    from localllm.weights.convert import OTHERS, convert
    from localllm.weights.gguf import read_header

    kept: list[Any] = []

    def work() -> dict[str, Any]:
        chosen = next(known for known in OTHERS if known == other)
        held: list[int] = []
        for _, _, data in convert(read_header(Path(path)), chosen):
            written = isinstance(data, Affine) or data.flags.owndata  # what is not is mapped from the file
            held.append(data.nbytes if written else 0)
            if keep:
                kept.append(data)
        result = sum(held) if keep else max(held)
        return {"result_bytes": result, "threads": workers(), "version": localllm.__version__}

    return work


def prepare_transformers(path: str, _other: str) -> _Work:
    """AutoModelForCausalLM.from_pretrained(folder, gguf_file=name), as transformers documents it."""
    torch, transformers = importlib.import_module("torch"), importlib.import_module("transformers")
    importlib.import_module("gguf")
    importlib.import_module("accelerate")
    load = transformers.AutoModelForCausalLM.from_pretrained  # its modules are imported when it is looked up
    kept: list[Any] = []

    def work() -> dict[str, Any]:
        folder, name = os.path.split(os.path.abspath(path))
        kept.append(load(folder, gguf_file=name))
        parameters = {id(p): p for p in kept[0].parameters()}.values()
        written = sum(p.numel() * p.element_size() for p in parameters)
        return {"result_bytes": written, "threads": torch.get_num_threads(), "version": transformers.__version__}

    return work


PREPARE = {"localllm": prepare_ours, "streaming": prepare_streaming, "transformers": prepare_transformers}


def main(what: str, path: str, other: str = "16bit") -> int:
    """Import, say so, work, and say what came of it."""
    try:
        work = PREPARE[what](path, other)
    except ImportError as error:
        _say({MISSING: error.name or str(error)})
        return 0
    _say({"ready": True, **memory()})
    started, computed = time.perf_counter(), time.process_time()
    result = work()
    seconds = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - computed}
    _say({**seconds, **result, **memory()})
    return 0


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]  # its neighbours are no modules
    raise SystemExit(main(*sys.argv[1:]))
