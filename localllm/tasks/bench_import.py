"""How long it takes to make a GGUF usable, and how much memory: our import, and beside it that of transformers.

Each run is a process of its own. The clock starts when everything is imported and stops when every tensor is converted
and, but for "streaming", held. Memory is looked at from outside every few milliseconds: what the process has written
itself ("anonymous"), to which mapped pages of the file do not count.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from localllm.errors import LocalLLMError, UsageError
from localllm.tasks.bench_child import MISSING, PREPARE
from localllm.weights.convert import Other
from localllm.weights.gguf import read_header

HOW_TO_INSTALL = "pip install torch transformers accelerate gguf, or name another interpreter with --peer"
_EVERY = 0.005  # seconds between looks at the memory


@dataclass(frozen=True)
class Run:
    """One import in one process."""

    program: str
    """"localllm"; "streaming", which is ours with each tensor let go before the next; or "transformers"."""
    seconds: float
    cpu_seconds: float
    """Of all threads, the system's work for the process included: what a busy machine changes less."""
    result_bytes: int
    """What the converted tensors take; when streaming, the largest of them."""
    peak_bytes: int | None
    """The most anonymous memory that was seen, less what the process had before the work; None where it is unknown."""
    peak_resident: int | None
    """The most memory in all, mapped pages of the file and the program itself included."""


@dataclass(frozen=True)
class Measured:
    """The medians of several runs of one program."""

    program: str
    version: str
    threads: int
    runs: int
    seconds: float
    cpu_seconds: float
    mb_per_second: float
    """10^6 bytes of the file."""
    result_bytes: int
    peak_bytes: int | None
    peak_resident: int | None
    extra_bytes: int | None
    """The peak beyond the result."""
    extra_in_largest: float | None
    """The same, in units of the largest tensor as it lies in the file."""


@dataclass(frozen=True)
class Absent:
    """A program that could not be measured."""

    program: str
    reason: str
    hint: str


def bench_import(
    path: Path, *, runs: int = 3, other: Other = "16bit", peer: Path | None = None
) -> Iterator[Run | Measured | Absent]:
    """Every run as it ends, and each program's medians after its runs: first ours, then transformers'.

    `peer` is the interpreter that has torch and transformers; this one by default. Raises InvalidModelError and
    ModelNotFoundError for the file, UsageError for less than one run or no such interpreter, and LocalLLMError when our
    own import fails.
    """
    if runs < 1:
        raise UsageError(f"--runs must be 1 or more, not {runs}.")
    file = read_header(path)
    largest = max(tensor.nbytes for tensor in file.tensors.values())
    for program in PREPARE:
        ours = program != "transformers"
        interpreter = Path(sys.executable) if ours or peer is None else peer
        done: list[tuple[Run, dict[str, Any]]] = []
        for _ in range(runs):
            result = _run(interpreter, program, path, other)
            if isinstance(result, Absent):
                if ours:
                    raise LocalLLMError(f"Importing {path} failed: {result.reason}", result.hint)
                yield result
                return
            done.append(result)
            yield result[0]
        yield _medians(done, file.size, largest)


def _medians(done: list[tuple[Run, dict[str, Any]]], size: int, largest: int) -> Measured:
    runs, (_, last) = [run for run, _ in done], done[-1]
    seconds = statistics.median(run.seconds for run in runs)
    peak = _median([run.peak_bytes for run in runs])
    result = runs[-1].result_bytes
    extra = None if peak is None else max(0, peak - result)
    return Measured(
        program=runs[0].program,
        version=str(last["version"]),
        threads=int(last["threads"]),
        runs=len(runs),
        seconds=seconds,
        cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
        mb_per_second=size / 1e6 / seconds,
        result_bytes=result,
        peak_bytes=peak,
        peak_resident=_median([run.peak_resident for run in runs]),
        extra_bytes=extra,
        extra_in_largest=None if extra is None else extra / largest,
    )


def _median(numbers: list[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return int(statistics.median(known)) if known else None


def _run(interpreter: Path, program: str, path: Path, other: Other) -> tuple[Run, dict[str, Any]] | Absent:
    """One child from start to end, watched."""
    script = Path(__file__).with_name("bench_child.py")
    env = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if program != "transformers":
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(script.parents[2]), os.environ.get("PYTHONPATH"))))
    command = [str(interpreter), str(script), program, str(path), other]
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:  # unlike a pipe, a file is never full
        try:
            child = subprocess.Popen(command, env=env, stdout=out, stderr=err)
        except OSError as error:
            raise UsageError(f"{interpreter} cannot be started: {error.strerror}.", "Give --peer a Python.") from error
        try:
            peak, resident = watch(child)
        except BaseException:
            child.kill()
            child.wait()
            raise
        lines, complaints = _read(out), _read(err)
    said = [json.loads(line) for line in lines if line.startswith("{")]
    if said and MISSING in said[0]:
        return Absent(program, f"{said[0][MISSING]} is not installed for {interpreter}", HOW_TO_INSTALL)
    if child.returncode or len(said) != 2:
        reason = complaints[-1] if complaints else f"it ended with code {child.returncode}"
        return Absent(program, reason, "Try another file")
    before, after = said
    return _result(program, before, after, peak, resident), after


def _read(file: IO[str]) -> list[str]:
    file.seek(0)
    return file.read().strip().splitlines()


def _result(program: str, before: dict[str, Any], after: dict[str, Any], peak: int, resident: int) -> Run:
    """What was seen from outside, with what the child said of itself."""
    known = before["anonymous"] is not None
    return Run(
        program,
        after["seconds"],
        after["cpu_seconds"],
        after["result_bytes"],
        max(peak, after["anonymous"]) - before["anonymous"] if known else None,
        max(resident, after["resident"]) if known else None,
    )


def watch(child: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The most anonymous and the most resident memory until the child ends; zeros where the system does not say.

    The resident peak is the system's own (VmHWM); anonymous memory has none, so peaks shorter than 5 ms can be missed.
    """
    status = Path(f"/proc/{child.pid}/status")
    anonymous = resident = 0
    while child.poll() is None:
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            anonymous = max(anonymous, int(fields["RssAnon"].split()[0]) * 1024)
            resident = max(resident, int(fields["VmHWM"].split()[0]) * 1024)
        except (OSError, KeyError):
            pass  # it has just ended, or this is not Linux
        time.sleep(_EVERY)
    return anonymous, resident
