"""What bench_tui.py measures of the terminal app in its own process: CPU, memory, and when something is drawn."""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from localllm.tui.app import LocalLLMApp

ROOT = Path(__file__).resolve().parent.parent
WORDS = "an adapter is a few numbers that say how a model should speak and what it has learned".split()  # noqa: SIM905


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

    app = LocalLLMApp(opener(StreamEngine(pieces=reply(count), delay=0.001)))
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
        times = asyncio.run(_cpu_of_parts(endless(kind)))
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


def endless(kind: str, count: int = 20000) -> list[str]:
    """One block, a word a token."""
    draw = random.Random(kind)
    lines = {"program": "x = '{}'", "table": "| {} | {} |", "list": "- {} {}", "paragraph": "{}"}
    pieces = {"program": ["```python\n"], "table": ["| one | two |\n|---|---|\n"]}.get(kind, [])
    while len(pieces) < count:
        words = [" ".join(draw.choices(WORDS, k=draw.randint(2, 7))) for _ in range(2)]
        text = lines[kind].format(*words) + (" " if kind == "paragraph" else "\n")
        pieces += text.replace(" ", " \0").split("\0")
    return pieces[:count]


def reply(count: int) -> list[str]:
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
    pairs = asyncio.run(_rates(model))
    bare, app = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    lost = 100 * (1 - statistics.median(shown / alone for alone, shown in pairs))
    return {"streaming overhead, %": max(0.0, lost), "bare engine, tokens/s": bare, "in the app, tokens/s": app}


async def _rates(model: str, rounds: int = 9, seconds: float = 2.5) -> list[tuple[float, float]]:
    """Of the bare engine and in the app, by turns; a reply takes about so many seconds."""
    from localllm.paths import Home
    from localllm.store.registry import Registry
    from localllm.tasks.chat import open_chat
    from localllm.tui.app import LocalLLMApp
    from localllm.types import Sampling
    from tests.tui.support import ready

    endless = Sampling(logit_bias=((0, float("-inf")), (2, float("-inf"))), max_tokens=100)
    found = []
    with tempfile.TemporaryDirectory() as home:
        app = LocalLLMApp(lambda: open_chat(Registry(Home(Path(home))), model, sampling=endless))
        async with app.run_test(size=(100, 30)) as pilot:
            screen = await ready(pilot)
            screen._work("", lambda: app.host.use_handbook(False))  # the bare engine looks nothing up either
            await ready(pilot)
            speed = await _bare_rate(app)
            app.host._default = replace(
                endless, max_tokens=round(min(app.host._opened().engine.info.n_ctx - 100, max(100, speed * seconds)))
            )
            for number in range(rounds):
                alone = await _bare_rate(app) if number % 2 else 0.0
                shown = await _rate_in_app(app, pilot)
                found.append((alone or await _bare_rate(app), shown))
        app.host.close()
    return found


async def _bare_rate(app: LocalLLMApp) -> float:
    from localllm.engine.base import Finished

    assert app.host._chat is not None
    session = app.host._chat.session
    session.clear()
    session.sampling = app.host._default
    events = await asyncio.to_thread(list, session.send("Who are you?"))
    return next(event.usage.tokens_per_second for event in events if isinstance(event, Finished))


async def _rate_in_app(app: LocalLLMApp, pilot: Pilot[None]) -> float:
    from tests.tui.support import ready, type_in

    await pilot.press("ctrl+n")
    screen = await ready(pilot)
    await type_in(pilot, "Who are you?")
    while screen.busy:  # asking more often would take time from the engine
        await asyncio.sleep(0.1)
    assert screen.state is not None
    stats = app.store.turns.branch(screen.state.chat or 0)[-1].stats
    assert stats.tokens == app.host._default.max_tokens
    return stats.tokens_per_second


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
    """Milliseconds; each until it goes to the terminal."""
    from textual.widgets import Input

    from localllm.store.chats.store import ChatStore
    from localllm.tui.app import LocalLLMApp, search_less_for_garbage
    from localllm.tui.widgets.sidebar import Sidebar
    from localllm.tui.widgets.transcript import Transcript
    from tests.tui.support import chat_screen, opener, ready, scripted

    found: dict[str, float] = {}
    started = time.perf_counter()

    async def seen(name: str, condition: Callable[[], bool], less: float = 0.0) -> None:
        while not condition():
            await asyncio.sleep(0.002)
        found[f"store, {name}, ms"] = (time.perf_counter() - started - less) * 1000

    engine = scripted("ok", n_ctx=1 << 24)
    app = LocalLLMApp(opener(engine), store=ChatStore(path), settled=search_less_for_garbage)
    written = _written(app)
    async with app.run_test(size=(140, 40)) as pilot:
        screen = chat_screen(app)
        await seen("to the list", lambda: any("Conversation" in text for text in written))
        await ready(pilot)
        written.clear()
        started = time.perf_counter()
        screen.query_one("#search", Input).value = "bazuvisdo"
        # Of this, a tenth of a second is the pause that shows that nothing more is typed.
        await seen("search to results", lambda: any("found" in text for text in written), less=0.1)
        transcript = screen.query_one(Transcript)
        last = app.store.turns.branch(long)[-1].content.split()[-1]
        written.clear()
        started = time.perf_counter()
        screen.query_one(Sidebar).post_message(Sidebar.Chosen(long, None))
        await seen(
            "2,000 messages drawn", lambda: len(transcript.branch) == 2000 and any(last in text for text in written)
        )
        await asyncio.sleep(0.3)
        drawn, started = len(transcript.messages), time.perf_counter()
        await transcript.more()
        await pilot.pause()
        await seen("earlier messages drawn", lambda: len(transcript.messages) > drawn)
    app.store.close()
    app.host.close()
    return found


def _written(app: LocalLLMApp) -> list[str]:
    """What would go to the terminal with each drawing of the screen; making it takes its time here too."""
    from textual._compositor import CompositorUpdate

    written: list[str] = []
    display = app._display

    def displayed(screen: Any, update: Any) -> None:
        display(screen, update)
        if isinstance(update, CompositorUpdate) and not app._batch_count:
            written.append(update.render_segments(app.console))

    app._display = displayed  # type: ignore[method-assign, assignment]
    return written


def memory() -> dict[str, float]:
    return {"growth over 500 exchanges, MB": asyncio.run(_growth(500))}


async def _growth(exchanges: int, warm: int = 40) -> float:
    """Resident memory after all, less that after the first few and less the text in between."""
    from localllm.tui.app import LocalLLMApp
    from localllm.tui.widgets.prompt import Prompt
    from tests.tui.support import StreamEngine, opener, ready

    engine = StreamEngine(pieces=(pieces := reply(40)), n_ctx=1 << 24)
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=(100, 30)) as pilot:
        prompt, before = (screen := await ready(pilot)).query_one(Prompt), 0.0
        for number in range(exchanges):
            if number == warm:
                before = _resident()
            engine.prompts.clear()
            prompt.insert(f"question {number}")
            prompt.action_send()
            while screen.busy or len(app.store.turns.branch(1)) < 2 * number + 2:
                await asyncio.sleep(0.01)
        assert len(app.store.turns.branch(1)) == 2 * exchanges
        grown = _resident() - before
    app.host.close()
    return (grown - (exchanges - warm) * (len("".join(pieces)) + 16)) / 1e6


def _resident() -> float:
    """Bytes of this process."""
    import gc

    gc.collect()
    return float(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
