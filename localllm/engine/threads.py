"""How many threads to decode with when nobody says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_BYTES_PER_THREAD = 32 << 20
_CPU_FOLDER = Path("/sys/devices/system/cpu")


def default_threads(model_bytes: int) -> int:
    """One thread for each physical core, but no more than one for each 32 MiB of weights.

    A decode step waits for its slowest thread many times; in a tiny model the waiting costs more than the help, and a
    great deal more when another program wants the core.
    """
    return max(1, min(physical_cores(), 1 + model_bytes // _BYTES_PER_THREAD))


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once; on Apple Silicon the performance cores."""
    if sys.platform == "darwin":
        return _performance_cores() or os.cpu_count() or 1
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    return len(cores) or 1


def _siblings(cpu: int) -> str:
    """What a processor shares with the other threads of its core; itself where the system does not say."""
    try:
        return (_CPU_FOLDER / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _performance_cores() -> int:
    command = ["sysctl", "-n", "hw.perflevel0.physicalcpu"]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0
