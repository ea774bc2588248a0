"""How quick the terminal app is: python scripts/bench_tui.py [--only NAME] [--json]

    start     seconds from Enter to the first paint and to "ready", `localllm chat` on the built-in model in a
              pseudo-terminal, import time included; the worst of five after one that warms the disk
    keys      milliseconds from a key press to its character in the terminal's output, while a reply streams at 200
              tokens a second from a scripted engine; the 95th percentile of 200 keys
    length    CPU per token of a 20,000-token reply over that of a 1,000-token one, both at 1,000 tokens a second
    overhead  tokens a second of the built-in model in the app, short of those of the bare engine
    memory    megabytes by which the app grows over 500 exchanges, beyond their text

Exits 1 over a limit. Other work on the machine shows in every number.
"""

from __future__ import annotations

import argparse
import asyncio
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
LIMITS = {
    "first paint, s": 1.0, "ready for input, s": 1.5, "key to screen, p95 ms": 50.0,
    "CPU a token, 20,000 to 1,000": 1.3, "streaming overhead, %": 5.0, "growth over 500 exchanges, MB": 30.0,
}  # fmt: skip
WORDS = "an adapter is a few numbers that say how a model should speak and what it has learned".split()  # noqa: SIM905


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
    """Capital letters are typed; the reply has none."""
    draw = random.Random(1)
    pieces = json.dumps([f"{draw.choice(WORDS)} " for _ in range(8000)])
    program = ROOT / "tests" / "tui" / "scripted_program.py"
    waited = []
    with terminal(sys.executable, str(program), pieces, "0.005") as opened:
        opened.wait_for("ready")
        opened.send("go\r")
        opened.wait_for("adapter")
        for number in range(200):
            letter = chr(ord("A") + number % 26)
            pressed = time.perf_counter()
            opened.send(letter)
            waited.append((opened.wait_for(letter, 5.0) - pressed) * 1000)
            if number % 20 == 19:
                opened.send("\x15")  # Ctrl+U empties the input
            time.sleep(0.03 + 0.02 * draw.random())
    p95, median = statistics.quantiles(waited, n=20)[-1], statistics.median(waited)
    return {"key to screen, p95 ms": p95, "key to screen, median ms": median}


def length() -> dict[str, float]:
    short, long = asyncio.run(_cpu_per_token(1000)), asyncio.run(_cpu_per_token(20000))
    return {"CPU a token, 20,000 to 1,000": long / short, "CPU a token, ms": long * 1000}


async def _cpu_per_token(count: int) -> float:
    from localllm.tui.app import LocalLLMApp
    from tests.tui.support import StreamEngine, chat_screen, opener, ready, type_in

    app = LocalLLMApp(opener(StreamEngine(pieces=_reply(count), delay=0.001)))
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await type_in(pilot, "go")
        began = time.process_time()
        while chat_screen(app).busy:
            await asyncio.sleep(0.05)
        spent = time.process_time() - began
    app.host.close()
    return spent / count


def _reply(count: int) -> list[str]:
    """Paragraphs, lists and code, a word a token."""
    draw = random.Random(count)
    pieces: list[str] = []
    while len(pieces) < count:
        kind = draw.choice("pppplc")
        if kind == "c":
            lines = [" ".join(draw.choices(WORDS, k=6)) for _ in range(draw.randint(3, 12))]
            text = "```python\n" + "\n".join(f"x = '{line}'" for line in lines) + "\n```\n\n"
        elif kind == "l":
            text = "".join(f"- {' '.join(draw.choices(WORDS, k=8))}\n" for _ in range(draw.randint(2, 6))) + "\n"
        else:
            text = " ".join(draw.choices(WORDS, k=draw.randint(20, 90))) + ".\n\n"
        pieces += text.replace(" ", " \0").split("\0")
    return pieces[:count]


def overhead() -> dict[str, float]:
    bare, app = asyncio.run(_rates())
    lost = max(0.0, 100 * (1 - app / bare))
    return {"streaming overhead, %": lost, "bare engine, tokens/s": bare, "in the app, tokens/s": app}


async def _rates(rounds: int = 5) -> tuple[float, float]:
    """Medians of replies that go on until the context is full."""
    from localllm.engine.base import Finished
    from localllm.paths import Home
    from localllm.store.registry import Registry
    from localllm.tasks.chat import open_chat
    from localllm.tui.app import LocalLLMApp
    from localllm.types import Sampling
    from tests.tui.support import ready, say

    endless = Sampling(logit_bias=((0, float("-inf")), (2, float("-inf"))), max_tokens=800)
    with tempfile.TemporaryDirectory() as home:
        app = LocalLLMApp(lambda: open_chat(Registry(Home(Path(home))), "guide", sampling=endless))
        bare, shown = [], []
        async with app.run_test(size=(100, 30)) as pilot:
            screen = await ready(pilot)
            assert app.host._chat is not None
            for _ in range(rounds):
                session = app.host._chat.session
                session.clear()
                events = await asyncio.to_thread(list, session.send("Who are you?"))
                bare.append(next(e.usage.tokens_per_second for e in events if isinstance(e, Finished)))
                await pilot.press("ctrl+n")
                await ready(pilot)
                await say(pilot, "Who are you?")
                assert screen.state is not None
                shown.append(app.store.turns.branch(screen.state.chat or 0)[-1].stats.tokens_per_second)
        app.host.close()
    return statistics.median(bare), statistics.median(shown)


def memory() -> dict[str, float]:
    return {"growth over 500 exchanges, MB": asyncio.run(_growth(500))}


async def _growth(exchanges: int, warm: int = 40) -> float:
    """Resident memory after all, less that after the first few and less the text in between."""
    from localllm.tui.app import LocalLLMApp
    from tests.tui.support import StreamEngine, opener, ready, say

    engine = StreamEngine(pieces=_reply(200), n_ctx=1 << 24)
    app = LocalLLMApp(opener(engine))
    text = 0
    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        before = 0.0
        for number in range(exchanges):
            if number == warm:
                before, text = _resident(), 0
            engine.prompts.clear()
            await say(pilot, f"question {number}")
            text += sum(map(len, engine.pieces)) + 16  # type: ignore[arg-type]
        grown = _resident() - before
    app.host.close()
    return (grown - text) / 1e6


def _resident() -> float:
    """Bytes of this process."""
    import gc

    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


MEASUREMENTS: dict[str, Callable[[], dict[str, float]]] = {
    "start": start, "keys": keys, "length": length, "overhead": overhead, "memory": memory,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MEASUREMENTS, action="append", help="this one (may be repeated)")
    parser.add_argument("--json", action="store_true", help="one object")
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    for name in arguments.only or MEASUREMENTS:
        found = MEASUREMENTS[name]()
        report |= found
        if not arguments.json:
            for what, value in found.items():
                limit = f"   (limit {LIMITS[what]:g})" if what in LIMITS else ""
                print(f"{what:32}{value:10.2f}{limit}", flush=True)
    if arguments.json:
        print(json.dumps(report))
    return int(any(value > LIMITS.get(name, float("inf")) for name, value in report.items()))


if __name__ == "__main__":
    sys.exit(main())
