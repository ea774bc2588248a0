"""What the main states look like. The engine is scripted and the clock frozen, so a picture differs only by a change.

After an intended change: pytest tests/tui/test_snapshots.py --snapshot-update, and look at the pictures.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from textual.pilot import Pilot

from localllm.store.chats.store import ChatStore
from localllm.tui.app import LocalLLMApp
from localllm.tui.widgets.prompt import Prompt
from tests.tui.support import StreamEngine, broken, chat_screen, opener, ready, say, scripted, shown, type_in, until

SIZES = [(80, 24), (140, 40)]

REPLY = """An adapter is a **few megabytes**. It is *attached* to the base model:

1. the base file stays as it is
2. switching takes milliseconds

```python
chat.use_adapter("tickets")
```

| adapter | exact |
|---|---|
| none | 4% |
| tickets | 93% |
"""


def frozen() -> float:
    return 0.0


def make(engine: Any, *adapters: str, beside: Any = None) -> LocalLLMApp:
    """An app with a few conversations in many scripts, one of them pinned."""
    store = ChatStore(clock=frozen)
    for title in (
        "Which bridge was rebuilt?",
        "岬の灯台について教えて",
        "مرحبا كيف حالك",
        "A garden 🌱 in winter",
    ):
        chat = store.create().id
        store.turns.add(chat, None, "user", title)
        store.pin(chat, "岬" in title)
    opening = opener(engine, *adapters, name="guide", title="The guide", beside=beside)
    return LocalLLMApp(opening, store=store, model="guide", clock=frozen)


async def settle(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: bool(chat_screen(pilot.app).query(Prompt)))  # type: ignore[arg-type]
    chat_screen(pilot.app).query_one(Prompt).cursor_blink = False  # type: ignore[arg-type]
    await ready(pilot)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "140x40"])
def test_welcome(snap_compare: Any, size: tuple[int, int]):
    assert snap_compare(make(scripted(), "tickets"), terminal_size=size, run_before=settle)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "140x40"])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_conversation(snap_compare: Any, size: tuple[int, int], theme: str):
    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await say(pilot, "/adapter tickets")
        await say(pilot, "What is an adapter?\nShow me.")
        if theme == "light":
            await pilot.press("f2")
            await pilot.pause(0.3)  # the highlighting of code follows the theme a moment later

    assert snap_compare(make(scripted(REPLY), "tickets"), terminal_size=size, run_before=run)


def test_streaming(snap_compare: Any):
    gate = threading.Event()
    engine = StreamEngine(pieces=("It is being ", "written **now", gate))
    app = make(engine)

    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        app.host._clock = lambda: engine._sent * 0.05
        await type_in(pilot, "Go on")
        await until(pilot, lambda: "now" in shown(app))

    assert snap_compare(app, terminal_size=(80, 24), run_before=run)
    gate.set()


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "140x40"])
def test_list(snap_compare: Any, size: tuple[int, int]):
    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await say(pilot, "Hello")
        await pilot.press("f3", "tab", "down")
        await until(pilot, lambda: "★" in shown(pilot.app))

    assert snap_compare(make(scripted("Hi.")), terminal_size=size, run_before=run)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "140x40"])
def test_settings(snap_compare: Any, size: tuple[int, int]):
    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await pilot.press("f4")
        await until(pilot, lambda: "Temperature" in shown(pilot.app))
        for widget in pilot.app.screen.query("Input, TextArea"):
            widget.cursor_blink = False  # type: ignore[attr-defined]
        pilot.app.screen.query_one("#save").focus()
        await pilot.pause()

    assert snap_compare(make(scripted()), terminal_size=size, run_before=run)


def test_context_full(snap_compare: Any):
    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await say(pilot, "one " * 10)
        await type_in(pilot, "two " * 12)
        await until(pilot, lambda: "The context is full" in shown(pilot.app))

    assert snap_compare(make(scripted("ok", n_ctx=100)), terminal_size=(80, 24), run_before=run)


@pytest.mark.parametrize("theme", ["dark", "contrast"])
def test_side_by_side(snap_compare: Any, theme: str):
    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await say(pilot, "/compare tickets")
        await say(pilot, "Which order is it?")
        if theme == "contrast":
            await pilot.press("f2", "f2")
            await pilot.pause(0.3)

    app = make(scripted("I do not know which order you mean."), "tickets", beside=scripted("Order: **Y-87258**"))
    assert snap_compare(app, terminal_size=(140, 40), run_before=run)


def test_thought_branches_and_a_focused_message(snap_compare: Any):
    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await say(pilot, "Think.")
        await pilot.press("ctrl+r")
        await ready(pilot)
        await pilot.press("ctrl+up")
        await pilot.pause()

    engine = scripted("no", "<think>It should be short, and true.</think>\n\nYes, *it does*.")
    assert snap_compare(make(engine), terminal_size=(80, 24), run_before=run)


def test_error_in_mid_stream(snap_compare: Any):
    app = make(StreamEngine(pieces=("Half a sent", broken())))

    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await say(pilot, "Go on")

    assert snap_compare(app, terminal_size=(80, 24), run_before=run)


def test_help(snap_compare: Any):
    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await pilot.press("f1")
        await pilot.pause()

    assert snap_compare(make(scripted()), terminal_size=(80, 24), run_before=run)


def test_no_color(snap_compare: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")

    async def run(pilot: Pilot[Any]) -> None:
        await settle(pilot)
        await say(pilot, "Hello")

    assert snap_compare(make(scripted(REPLY)), terminal_size=(80, 24), run_before=run)
