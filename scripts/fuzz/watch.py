"""The header reader under watch: what it raises, how long it takes, how much memory it wants."""

from __future__ import annotations

import hashlib
import resource
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from localllm.errors import LocalLLMError
from localllm.weights.gguf import read_header

from .mutations import Mutator

SECONDS, MEMORY = 1.0, 64 << 20


class TooLong(Exception):  # noqa: N818 - a verdict
    """A case used the processor for longer than SECONDS."""


@dataclass
class Report:
    """What the reader made of the cases."""

    cases: int = 0
    refused: int = 0
    passed: list[int] = field(default_factory=list)
    """Numbers of those that passed and had not been seen before."""
    slowest: float = 0.0
    slowest_number: int = -1
    memory: int = 0
    """Bytes by which the process was larger at its largest than at the start."""
    violations: list[tuple[int, str]] = field(default_factory=list)


def read_all(mutator: Mutator, numbers: Iterable[int], folder: Path) -> Report:
    """Give every case to the reader, in a file in `folder`."""
    report, path, seen = Report(), folder / "case.gguf", set[bytes]()
    previous = signal.signal(signal.SIGPROF, _too_long)
    before = peak()
    try:
        for number in numbers:
            data = mutator.case(number)
            path.write_bytes(data)
            if _read(path, number, report):
                digest = hashlib.blake2b(data, digest_size=8).digest()
                if digest not in seen:
                    seen.add(digest)
                    report.passed.append(number)
            report.memory = peak() - before  # what is remembered of the cases included
            if report.memory > MEMORY + len(data):
                report.violations.append((number, f"{report.memory >> 20} MiB more than at the start"))
                break
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)
    return report


def _read(path: Path, number: int, report: Report) -> bool:
    """Whether the reader lets the file pass."""
    report.cases += 1
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # time of the processor: others may be using it as well
    started = time.process_time()
    passed = False
    try:
        read_header(path)
        passed = True
    except LocalLLMError:
        report.refused += 1
    except TooLong:
        report.violations.append((number, f"took longer than {SECONDS} s"))
    except Exception as error:  # whatever it is, it is not ours
        report.violations.append((number, repr(error)))
    seconds = time.process_time() - started
    if seconds > report.slowest:
        report.slowest, report.slowest_number = seconds, number
    return passed


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TooLong
