"""Run the real command line in a child process, as a person would."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def run(*arguments: str | Path, stdin: str = "", cwd: Path | None = None) -> Outcome:
    """`localllm ARGUMENTS` with its exit code and both streams."""
    command = [sys.executable, "-m", "localllm", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=900, cwd=cwd, check=False)
    return Outcome(done.returncode, done.stdout, done.stderr)


def fails(outcome: Outcome, code: int, *words: str) -> None:
    """One clear line on standard error, no traceback, nothing on standard output."""
    assert outcome.code == code, outcome
    assert "Traceback" not in outcome.err
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("localllm: ")
    for word in words:
        assert word in lines[0], outcome.err
    assert outcome.out == ""
