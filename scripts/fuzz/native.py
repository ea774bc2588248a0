"""llama.cpp in a child of bounded memory and time that is given one file after the other, and again after it died."""

from __future__ import annotations

import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")
SECONDS = 20.0
"""After which a case is called hanging; each takes a few milliseconds."""


@dataclass
class Outcome:
    """What came of the files given to llama.cpp."""

    loads: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """Number of the case and how the child ended: by a signal, hanging, or with an error that is none of ours."""


def load_all(cases: Iterable[tuple[int, bytes]], base: Path, keep: Path | None = None) -> Outcome:
    """Give every case to llama.cpp; adapters are attached to `base`. What fails is kept in the folder `keep`."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory(dir=scratch()) as folder, tempfile.TemporaryFile() as complaints:
        path, child = Path(folder) / "case.gguf", None
        for number, data in cases:
            path.unlink(missing_ok=True)  # a new file: the old one may still be mapped
            path.write_bytes(data)
            child = child or _start(base, complaints)
            verdict = _ask(child, path)
            outcome.loads += 1
            if verdict.startswith("refused: "):
                outcome.refusals[verdict[9:].replace(str(path), "FILE")] += 1
            elif verdict != "ok":
                outcome.failures.append((number, f"{verdict} {_last_line(complaints)}"))
                if keep:
                    (keep / f"{number}.gguf").write_bytes(data)
            if child.poll() is not None:
                child = None
        if child:
            child.communicate()
    return outcome


def scratch() -> str | None:
    """A folder in memory where there is one: a million files are written there."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _start(base: Path, complaints: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(CHILD), str(base)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints)  # type: ignore[call-overload]


def _ask(child: subprocess.Popen[bytes], path: Path) -> str:
    """The child's answer, or how it died."""
    assert child.stdin
    assert child.stdout
    child.stdin.write(f"{path}\n".encode())
    child.stdin.flush()
    ready, _, _ = select.select([child.stdout], [], [], SECONDS)
    line = child.stdout.readline().decode("utf-8", "replace").strip() if ready else ""
    if line:
        return line
    if not ready:
        child.kill()
    status = child.wait()
    return (
        f"hangs after {SECONDS:.0f} s"
        if not ready
        else f"died of {signal.Signals(-status).name if status < 0 else status}"
    )


def _last_line(complaints: object) -> str:
    """What the child said last on standard error, which is then emptied."""
    complaints.seek(0)  # type: ignore[attr-defined]
    lines = complaints.read().decode("utf-8", "replace").split("\n")  # type: ignore[attr-defined]
    complaints.seek(0)  # type: ignore[attr-defined]
    complaints.truncate()  # type: ignore[attr-defined]
    telling = [line for line in lines if "assert" in line.lower() or "error" in line.lower() or "what()" in line]
    return (telling or [line for line in lines if line.strip()] or [""])[-1].strip()
