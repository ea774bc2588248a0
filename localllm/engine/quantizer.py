"""The child process that runs `llama_model_quantize`, and its parent's side: start it, follow it, end it.

The job goes in as one JSON argument; out come JSON lines, {"log": level, "text": ...} for what llama.cpp says. The
status is 0 when the file is written. The child ends when its standard input does, so it does not outlive the parent.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from localllm import children
from localllm.errors import EngineError, InvalidModelError, StorageError
from localllm.weights.beside import beside, check_room, storage_error

_GRACE = 2.0  # seconds to end after SIGTERM
_WARN = 3  # ggml.h, enum ggml_log_level
_TENSOR = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s+(\S+)")  # as llama_model_quantize_impl reports each
_SLAB = 256 << 20  # bytes of rows that llama.cpp holds at a time; the result is the same with any number
_INT, _STRING = 0, 3  # llama.h, enum llama_model_kv_override_type


@dataclass(frozen=True)
class Job:
    """What to quantize: paths, a name of FILE_TYPES, and llama.cpp's switches."""

    source: str
    target: str
    kind: str
    imatrix: str | None
    requantize: bool
    pure: bool
    n_threads: int = 1


def run_job(
    job: Job, n_threads: int, least: int, cancel: threading.Event | None = None
) -> Iterator[tuple[int, int, str]]:
    """Do the job in a child, yielding (number, of how many, name) of each tensor; the file is renamed into place last.

    `least` bytes have to be free. Raises EngineError, StorageError and CancelledError.
    """
    target = Path(job.target)
    temporary = beside(target)
    check_room(target, least, " at least")
    said: list[str] = []
    try:
        child_job = json.dumps(asdict(replace(job, target=str(temporary), n_threads=n_threads)))
        with children.running("localllm.engine.quantizer", child_job, stderr=subprocess.STDOUT, grace=_GRACE) as child:
            for level, text in map(_said, children.lines(child, cancel, "Stopped; nothing was written.")):
                if found := _TENSOR.match(text):
                    yield int(found[1]), int(found[2]), found[3]
                elif level >= _WARN:
                    said.append(text)
            status = child.wait()
        if status != 0:
            raise _failure(status, said, job)
        _publish(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _publish(temporary: Path, target: Path) -> None:
    """Look whether the file is whole, have it on the disk, and give it its name."""
    from localllm.weights.gguf import read_header

    try:
        read_header(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except InvalidModelError as error:
        raise EngineError(f"llama.cpp wrote a file for {target} that is not whole.", "Is the disk full?") from error
    except OSError as error:
        raise storage_error(target, error) from error


def _failure(status: int, said: list[str], job: Job) -> EngineError | StorageError:
    what = f"The model could not be quantized to {job.kind}"
    text = "; ".join(line.strip(" =\n") for line in said)
    if "iostream" in text or "basic_ios" in text:
        return storage_error(Path(job.target), OSError(errno.ENOSPC, "llama.cpp could not write all of it"))
    if status == -signal.SIGKILL:
        return EngineError(f"{what}: the process was killed.", "Most likely the machine ran out of memory.")
    if "imatrix" in text or "importance matrix" in text:
        return EngineError(f"{what} without a fitting importance matrix.", "Give one with --imatrix.")
    if "requantizing from type" in text:
        return EngineError(f"{what}: it is quantized already.", "Start from an F16 or F32 file.")
    why = next((line.split(": ", 1)[-1] for line in reversed(said) if "fail" in line.lower()), said[-1] if said else "")
    how = f" ({children.signal_name(status)})" if status < 0 else ""
    return EngineError(f"{what}{how}: {why.strip() or 'llama.cpp said nothing'}.", "Choose another --type.")


def _said(line: str) -> tuple[int, str]:
    """What llama.cpp says comes as JSON; anything else is what a child says that cannot go on."""
    try:
        said = json.loads(line)
        return int(said["log"]), str(said["text"])
    except (ValueError, KeyError, TypeError):
        return _WARN, line


# The child


def main(job: Job) -> int:
    """Quantize, with everything llama.cpp says on stdout; 0 when the file is written."""
    from localllm.engine.native import library
    from localllm.engine.quantize import FILE_TYPES

    children.end_with_parent(1)
    lib = library()
    on_log = lib.llama_log_callback(_say)
    lib.llama_log_set(on_log, ctypes.c_void_p(0))
    params = lib.llama_model_quantize_default_params()
    params.nthread = job.n_threads
    params.ftype = getattr(lib, f"LLAMA_FTYPE_{FILE_TYPES[job.kind]}")
    params.only_copy = job.kind == "COPY"
    params.allow_requantize, params.pure, params.max_buf_size = job.requantize, job.pure, _SLAB
    held = _set_imatrix(lib, params, Path(job.imatrix)) if job.imatrix else None
    status = lib.llama_model_quantize(os.fsencode(job.source), os.fsencode(job.target), ctypes.byref(params))
    del held
    return int(status)


def _say(level: int, text: bytes, _user_data: Any) -> None:
    sys.stdout.write(json.dumps({"log": level, "text": text.decode("utf-8", "replace")}) + "\n")
    sys.stdout.flush()


def _set_imatrix(lib: Any, params: Any, path: Path) -> Any:
    """Give the matrix to llama.cpp and say in the file's metadata which one it was; returns what has to stay alive."""
    from localllm.weights.imatrix import read_imatrix

    matrix = read_imatrix(path)
    entries = (lib.llama_model_imatrix_data * (len(matrix.importance) + 1))()  # the last one, all zero, ends the list
    for entry, (name, values) in zip(entries, matrix.importance.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    facts: dict[str, str | int] = {"file": path.name, "entries_count": len(matrix.importance)}
    facts |= {key: value for key, value in (("dataset", matrix.dataset), ("chunks_count", matrix.chunks)) if value}
    overrides = (lib.llama_model_kv_override * (len(facts) + 1))()
    for override, (key, value) in zip(overrides, facts.items(), strict=False):
        override.key = f"quantize.imatrix.{key}".encode()
        if isinstance(value, str):
            override.tag, override.value.val_str = _STRING, value.encode()[:127].decode("utf-8", "ignore").encode()
        else:
            override.tag, override.value.val_i64 = _INT, value
    params.imatrix, params.kv_overrides = entries, overrides
    return matrix, entries, overrides


if __name__ == "__main__":
    sys.exit(main(Job(**json.loads(sys.argv[1]))))
