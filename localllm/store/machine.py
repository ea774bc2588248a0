"""How much memory this machine has left for one more process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from localllm.errors import LocalLLMError

ROOT = Path("/")


def available_memory(root: Path = ROOT, platform: str = sys.platform) -> int:
    """Bytes that can be taken without swapping. Raises LocalLLMError where the system does not say.

    Linux: MemAvailable of /proc/meminfo, or what the limits of the control groups leave, whichever is less. macOS: the
    physical memory less what is wired, which it gives programs at the cost of others' caches.
    """
    if platform == "darwin":
        return _macos()
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        raise LocalLLMError("The system does not say how much memory is available.", "Give --memory GB.") from None
    return min([kib * 1024, *_left_by_groups(root)])


def _left_by_groups(root: Path) -> list[int]:
    """Of version 2 every group from this process's up to the root; of version 1 the one that containers mount."""
    base = root / "sys/fs/cgroup"
    try:
        entries = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        entries = []
    own = next((line[3:].strip("/") for line in entries if line.startswith("0::")), "")
    folders = [base / own, *(base / own).parents] if ".." not in own else [base]
    pairs = [(f / "memory.max", f / "memory.current") for f in folders if f == base or base in f.parents]
    pairs.append((base / "memory/memory.limit_in_bytes", base / "memory/memory.usage_in_bytes"))
    return [max(0, limit - used) for limit, used in map(_numbers, pairs) if limit is not None and used is not None]


def _numbers(pair: tuple[Path, Path]) -> tuple[int | None, int | None]:
    try:
        limit, used = (path.read_text().strip() for path in pair)
        return int(limit), int(used)  # "max": there is no limit
    except (OSError, ValueError):
        return None, None


def _macos() -> int:
    try:
        total = int(_said("sysctl", "-n", "hw.memsize"))
        lines = _said("vm_stat").splitlines()
        page = int(lines[0].split("page size of ")[1].split()[0])
        wired = next(int(line.split()[-1].rstrip(".")) for line in lines if line.startswith("Pages wired down"))
        squeezed = next((int(line.split()[-1].rstrip(".")) for line in lines if "occupied by compressor" in line), 0)
    except (OSError, subprocess.SubprocessError, StopIteration, ValueError, IndexError):
        raise LocalLLMError("The system does not say how much memory is available.", "Give --memory GB.") from None
    return max(0, total - (wired + squeezed) * page)


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
