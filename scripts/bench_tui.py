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
    overhead  tokens a second in the app, short of those of the bare engine (--model: a name or a path)
    store     milliseconds until a store of 2,000 conversations and 100,000 messages is listed, searched, and a
              conversation of 2,000 messages drawn, and its earlier messages when scrolling up; the slowest of five
    memory    megabytes by which the app grows over 500 exchanges, beyond their text

Exits 1 over a limit. Other work on the machine shows in every number, least in CPU and memory.
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
    "first paint, s": 1.0, "ready for input, s": 1.5,
    "keys, mixed, p95 ms": 50.0, "keys, paragraph, p95 ms": 50.0, "keys, program, p95 ms": 50.0,
    "CPU a token, 20,000 to 1,000": 1.3, "paragraph, last to first": 1.3, "program, last to first": 1.3,
    "table, last to first": 1.3, "list, last to first": 1.3, "streaming overhead, %": 5.0,
    "store, to the list, ms": 1500.0, "store, search to results, ms": 200.0, "store, 2,000 messages drawn, ms": 500.0,
    "growth over 500 exchanges, MB": 30.0,
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
        ("mixed", _reply(4000)),
        ("paragraph", _endless("paragraph")),
        ("program", _endless("program")),
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


def length() -> dict[str, float]:
    short = [asyncio.run(_cpu_per_token(1000)) for _ in range(3)]
    cpu, drawn = asyncio.run(_cpu_per_token(20000))
    return {
        "CPU a token, 20,000 to 1,000": cpu / statistics.median(cpu for cpu, _ in short),
        "CPU a token, of 20,000, ms": cpu * 1000,
        "drawn a second, of 1,000": statistics.median(drawn for _, drawn in short),
        "drawn a second, of 20,000": drawn,
    }


async def _cpu_per_token(count: int) -> tuple[float, float]:
    """Seconds of this process, and how often the reply was drawn in a second."""
    from localllm.tui.app import LocalLLMApp
    from localllm.tui.widgets.flow import MarkdownFlow
    from tests.tui.support import StreamEngine, chat_screen, opener, ready, type_in

    app = LocalLLMApp(opener(StreamEngine(pieces=_reply(count), delay=0.001)))
    drawn, append = 0, MarkdownFlow.append

    def counted(flow: MarkdownFlow, text: str) -> None:
        nonlocal drawn
        drawn += 1
        append(flow, text)

    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        MarkdownFlow.append = counted  # type: ignore[method-assign, assignment]
        await type_in(pilot, "go")
        began, started = time.process_time(), time.perf_counter()
        while chat_screen(app).busy:
            await asyncio.sleep(0.05)
        spent, lasted = time.process_time() - began, time.perf_counter() - started
        MarkdownFlow.append = append  # type: ignore[method-assign]
    app.host.close()
    return spent / count, drawn / lasted


def blocks() -> dict[str, float]:
    found: dict[str, float] = {}
    for kind in ("paragraph", "program", "table", "list"):
        times = asyncio.run(_cpu_of_parts(_endless(kind)))
        found[f"{kind}, last to first"] = sum(times[-2:]) / sum(times[:2])
        found[f"{kind}, CPU a token, ms"] = sum(times) / len(times)
    return found


async def _cpu_of_parts(pieces: list[str], at_once: int = 50) -> list[float]:
    """Seconds of this process for each 1,000 tokens, 50 at once: read, laid out, and painted where they are seen."""
    from textual.app import App, ComposeResult
    from textual.containers import VerticalScroll

    from localllm.tui.widgets.flow import MarkdownFlow

    class OneReply(App[None]):
        CSS_PATH = ROOT / "localllm" / "tui" / "app.tcss"

        def compose(self) -> ComposeResult:
            with VerticalScroll():
                yield MarkdownFlow()

    times = []
    app = OneReply()
    async with app.run_test(size=(100, 30)) as pilot:
        app.query_one(VerticalScroll).anchor()
        for start in range(0, len(pieces), 1000):
            began = time.process_time()
            for at in range(start, start + 1000, at_once):
                app.query_one(MarkdownFlow).append("".join(pieces[at : at + at_once]))
                await pilot.pause(0.02)
            times.append(time.process_time() - began)
    return times


def _endless(kind: str, count: int = 20000) -> list[str]:
    """One block, a word a token."""
    draw = random.Random(kind)
    lines = {"program": "x = '{}'", "table": "| {} | {} |", "list": "- {} {}", "paragraph": "{}"}
    pieces = {"program": ["```python\n"], "table": ["| one | two |\n|---|---|\n"]}.get(kind, [])
    while len(pieces) < count:
        words = [" ".join(draw.choices(WORDS, k=draw.randint(2, 7))) for _ in range(2)]
        text = lines[kind].format(*words) + (" " if kind == "paragraph" else "\n")
        pieces += text.replace(" ", " \0").split("\0")
    return pieces[:count]


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


def overhead(model: str = "guide") -> dict[str, float]:
    bare, app = asyncio.run(_rates(model))
    lost = max(0.0, 100 * (1 - app / bare))
    return {"streaming overhead, %": lost, "bare engine, tokens/s": bare, "in the app, tokens/s": app}


async def _rates(model: str, rounds: int = 5, tokens: int = 800) -> tuple[float, float]:
    """Medians of replies of so many tokens, by turns."""
    from localllm.engine.base import Finished
    from localllm.paths import Home
    from localllm.store.registry import Registry
    from localllm.tasks.chat import open_chat
    from localllm.tui.app import LocalLLMApp
    from localllm.types import Sampling
    from tests.tui.support import ready, type_in

    endless = Sampling(logit_bias=((0, float("-inf")), (2, float("-inf"))), max_tokens=tokens)
    with tempfile.TemporaryDirectory() as home:
        app = LocalLLMApp(lambda: open_chat(Registry(Home(Path(home))), model, sampling=endless))
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
                await type_in(pilot, "Who are you?")
                while screen.busy:  # asking more often would take time from the engine
                    await asyncio.sleep(0.1)
                assert screen.state is not None
                shown.append(app.store.turns.branch(screen.state.chat or 0)[-1].stats.tokens_per_second)
        app.host.close()
    return statistics.median(bare), statistics.median(shown)


def store() -> dict[str, float]:
    from bench_chats import fill

    from localllm.store.chats.store import ChatStore

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chats.sqlite3"
        filled = ChatStore(path)
        long = fill(filled, 2000, 100_000)
        filled.close()
        runs = [asyncio.run(_browse(path, long)) for _ in range(5)]
    return {name: max(run[name] for run in runs) for name in runs[0]}


async def _browse(path: Path, long: int) -> dict[str, float]:
    """Milliseconds; each until it stands on the screen."""
    from textual.widgets import Input

    from localllm.store.chats.store import ChatStore
    from localllm.tui.app import LocalLLMApp
    from localllm.tui.widgets.sidebar import ChatList, Sidebar
    from localllm.tui.widgets.transcript import Transcript
    from tests.tui.support import chat_screen, opener, ready, scripted, shown

    found: dict[str, float] = {}
    started = time.perf_counter()

    async def seen(name: str, condition: Callable[[], bool], less: float = 0.0) -> None:
        while not condition():
            await asyncio.sleep(0.002)
        found[f"store, {name}, ms"] = (time.perf_counter() - started - less) * 1000

    app = LocalLLMApp(opener(scripted("ok", n_ctx=1 << 24)), store=ChatStore(path))
    async with app.run_test(size=(140, 40)) as pilot:
        screen = chat_screen(app)
        await seen("to the list", lambda: screen.query_one(ChatList).option_count > 0 and "Conversation" in shown(app))
        await ready(pilot)
        started = time.perf_counter()
        screen.query_one("#search", Input).value = "bazuvisdo"
        # Of this, a tenth of a second is the pause that shows that nothing more is typed.
        await seen("search to results", lambda: "found" in shown(app), less=0.1)
        transcript = screen.query_one(Transcript)
        started = time.perf_counter()
        screen.query_one(Sidebar).post_message(Sidebar.Chosen(long, None))
        last = app.store.turns.branch(long)[-1].content.split()[-1]
        started = time.perf_counter()
        await seen("2,000 messages drawn", lambda: len(transcript.branch) == 2000 and last in shown(app))
        drawn, started = len(transcript.messages), time.perf_counter()
        await transcript.more()
        await pilot.pause()
        await seen("earlier messages drawn", lambda: len(transcript.messages) > drawn)
    app.store.close()
    app.host.close()
    return found


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
