"""How long a person waits before anything happens, measured from outside, whole processes.

    python scripts/cold_start.py [--runs N] [--json]

`localllm --help` (the process from start to exit) and the first byte of an answer from `localllm ask` on the built-in
model. The first run of each is not counted: it fills the disk cache. Exits 1 when a median is over its limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("localllm")
HELP_LIMIT_MS = 200
FIRST_TOKEN_LIMIT_MS = 1500


def time_help() -> float:
    """Milliseconds for `localllm --help`."""
    started = time.perf_counter()
    subprocess.run([PROGRAM, "--help"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - started) * 1000


def time_first_token(question: str = "Who are you?") -> float:
    """Milliseconds until `localllm ask` has written the first byte of its answer."""
    command = [PROGRAM, "ask", question, "--max-tokens", "8", "--temperature", "0"]
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout
        assert process.stderr
        first = process.stdout.read(1)
        waited = (time.perf_counter() - started) * 1000
        _, narration = process.communicate()
    if not first or process.returncode:
        raise SystemExit(f"cold_start: {' '.join(map(str, command))} failed:\n{narration.decode()}")
    return waited


MEASUREMENTS = {
    "localllm --help": (time_help, HELP_LIMIT_MS),
    "localllm ask, first token": (time_first_token, FIRST_TOKEN_LIMIT_MS),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="one object, times in milliseconds")
    arguments = parser.parse_args()

    if not arguments.json:
        print(f"{'milliseconds':28}{'median':>8}{'best':>8}{'worst':>8}{'limit':>8}   ({arguments.runs} runs)")
    report = {}
    for name, (measure, limit) in MEASUREMENTS.items():
        measure()
        times = [measure() for _ in range(arguments.runs)]
        row = {"median": statistics.median(times), "best": min(times), "worst": max(times), "limit": limit}
        report[name] = row
        if not arguments.json:
            print(f"{name:28}" + "".join(f"{value:8.0f}" for value in row.values()), flush=True)
    if arguments.json:
        print(json.dumps({"runs": arguments.runs, **report}))
    return int(any(row["median"] > row["limit"] for row in report.values()))


if __name__ == "__main__":
    sys.exit(main())
