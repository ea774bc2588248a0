"""What the system says of its memory, from files made up for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.errors import LocalLLMError
from localllm.store import machine
from localllm.store.machine import available_memory


def _file(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    _file(tmp_path, "proc/meminfo", "MemTotal:       8000 kB\nMemAvailable:   4000 kB\n")
    return tmp_path


def test_linux_says_what_is_available(root: Path) -> None:
    assert available_memory(root, "linux") == 4000 * 1024


def test_the_least_of_all_limits_above_a_process_holds(root: Path) -> None:
    _file(root, "proc/self/cgroup", "0::/work/job\n")
    _file(root, "sys/fs/cgroup/work/job/memory.max", "max\n")
    _file(root, "sys/fs/cgroup/work/job/memory.current", "1000\n")
    assert available_memory(root, "linux") == 4000 * 1024
    _file(root, "sys/fs/cgroup/work/memory.max", "2000000\n")
    _file(root, "sys/fs/cgroup/work/memory.current", "500000\n")
    assert available_memory(root, "linux") == 1_500_000


def test_the_limit_of_a_container_of_version_1(root: Path) -> None:
    _file(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n")
    _file(root, "sys/fs/cgroup/memory/memory.usage_in_bytes", "1200000\n")
    assert available_memory(root, "linux") == 0


def test_macos_gives_what_is_not_wired(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:  10.\nPages wired down:   100.\n"
        "Pages occupied by compressor:   20.\n"
    )
    said = {"sysctl": "17179869184\n", "vm_stat": pages}
    monkeypatch.setattr(machine, "_said", lambda *command: said[command[0]])
    assert available_memory(platform="darwin") == 17179869184 - 120 * 16384
    said["vm_stat"] = "nothing of use"
    with pytest.raises(LocalLLMError, match="does not say"):
        available_memory(platform="darwin")


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    with pytest.raises(LocalLLMError, match="does not say") as error:
        available_memory(tmp_path, "linux")
    assert "--memory" in error.value.hint
