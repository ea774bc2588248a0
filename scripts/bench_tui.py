"""How quick the terminal app is: python scripts/bench_tui.py [--only NAME] [--json]

    start     seconds from Enter to the first paint and to "ready", `localllm chat` on the built-in model in a
              pseudo-terminal, import time included; the worst of five after one that warms the disk
    keys      milliseconds from a key press to its character in the terminal's output, while a reply streams at 200
              tokens a second from a scripted engine: one of every kind of block, then one paragraph and one program
              that do not end; 80 keys each
    length    CPU per token of a 20,000-token reply over that of a 1,000-token one, at 1,000 tokens a second, and how
              often each was drawn
    blocks    the same of one paragraph, program, table, list that does not end: the CPU that reading and drawing its
              last 2,000 tokens take, over that of its first 2,000
    overhead  tokens a second in the app, short of those of the bare engine for the same prompt (--model: a name or a
              path): the median of rounds of both, a reply of each in turn
    store     milliseconds until a store of 2,000 conversations and 100,000 messages is listed, searched, and a
              conversation of 2,000 messages drawn, and its earlier messages when scrolling up; the slowest of five
    memory    megabytes by which the app grows over 500 exchanges, beyond their text; replies of 40 tokens, as fast as
              the app takes them

Exits 1 over a limit. Other work on the machine shows in every number, least in CPU and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import random
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench_tui_app import blocks, endless, length, memory, overhead, reply, store  # noqa: E402 - it needs the path

LIMITS = {
    "first paint, s": 1.0, "ready for input, s": 1.5,
    "keys, mixed, p95 ms": 50.0, "keys, paragraph, p95 ms": 50.0, "keys, program, p95 ms": 50.0,
    "CPU a token, 20,000 to 1,000": 1.3, "paragraph, last to first": 1.3, "program, last to first": 1.3,
    "table, last to first": 1.3, "list, last to first": 1.3, "streaming overhead, %": 5.0,
    "store, to the list, ms": 1500.0, "store, search to results, ms": 200.0, "store, 2,000 messages drawn, ms": 500.0,
    "growth over 500 exchanges, MB": 30.0,
}  # fmt: skip


class Terminal:
    """A program in a pseudo-terminal of 100 x 30."""

    def __init__(self, *command: str, home: str) -> None:
        self._own, theirs = pty.openpty()
        import fcntl
        import termios

        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environment = os.environ | {"TERM": "xterm-256color", "LOCALLLM_HOME": home, "PYTHONPATH": str(ROOT)}
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)

    def wait_for(self, text: str, seconds: float = 60.0) -> float:
        """When the output has this text, counted from now on; perf_counter's time."""
        seen, end = b"", time.perf_counter() + seconds
        while time.perf_counter() < end:
            if select.select([self._own], [], [], 0.5)[0]:
                try:
                    seen = (seen + os.read(self._own, 65536))[-200_000:]
                except OSError:
                    break
                if text.encode() in seen:
                    return time.perf_counter()
        raise SystemExit(f"bench_tui: {text!r} did not appear; at last: {seen[-300:]!r}")

    def read_for(self, seconds: float) -> None:
        """Let the program write."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if select.select([self._own], [], [], left)[0]:
                os.read(self._own, 65536)

    def send(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._own)


@contextmanager
def terminal(*command: str) -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        opened = Terminal(*command, home=home)
        try:
            yield opened
        finally:
            opened.close()


def start() -> dict[str, float]:
    paints, readies = [], []
    for _ in range(6):
        with terminal(sys.executable, "-m", "localllm", "chat") as opened:
            paints.append(opened.wait_for("Opening guide") - opened.started)
            readies.append(opened.wait_for("ready") - opened.started)
    return {"first paint, s": max(paints[1:]), "ready for input, s": max(readies[1:])}


def keys() -> dict[str, float]:
    """Greek letters are typed: neither the reply nor the terminal's commands have any."""
    found: dict[str, float] = {}
    for kind, pieces in (
        ("mixed", reply(4000)),
        ("paragraph", endless("paragraph")),
        ("program", endless("program")),
    ):
        waited = _type_while(pieces, 80)
        found[f"keys, {kind}, p95 ms"] = statistics.quantiles(waited, n=20)[-1]
        found[f"keys, {kind}, median ms"] = statistics.median(waited)
    return found


def _type_while(pieces: list[str], count: int) -> list[float]:
    draw = random.Random(1)
    program = ROOT / "tests" / "tui" / "scripted_program.py"
    waited = []
    with terminal(sys.executable, str(program), json.dumps(pieces[:4000]), "0.005") as opened:
        opened.wait_for("ready")
        opened.send("go\r")
        opened.wait_for("writing")
        for number in range(count):
            letter = chr(0x3B1 + number % 17)
            pressed = time.perf_counter()
            opened.send(letter)
            waited.append((opened.wait_for(letter, 5.0) - pressed) * 1000)
            if number % 17 == 16:
                opened.send("\x15")  # Ctrl+U empties the input
            opened.read_for(0.05 + 0.1 * draw.random())
    return waited


MEASUREMENTS: dict[str, Callable[[], dict[str, float]]] = {
    "start": start, "keys": keys, "length": length, "blocks": blocks, "overhead": overhead, "store": store,
    "memory": memory,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MEASUREMENTS, action="append", help="this one (may be repeated)")
    parser.add_argument("--model", default="guide", help="for the overhead")
    parser.add_argument("--json", action="store_true", help="one object")
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    for name in arguments.only or MEASUREMENTS:
        found = overhead(arguments.model) if name == "overhead" else MEASUREMENTS[name]()
        report |= found
        if not arguments.json:
            for what, value in found.items():
                limit = f"   (limit {LIMITS[what]:g})" if what in LIMITS else ""
                print(f"{what:34}{value:10.2f}{limit}", flush=True)
    if arguments.json:
        print(json.dumps(report))
    return int(any(value > LIMITS.get(name, float("inf")) for name, value in report.items()))


if __name__ == "__main__":
    sys.exit(main())
