"""What the main states look like. The engine is scripted and the clock frozen, so a picture differs only by a change.

After an intended change: pytest tests/tui/test_snapshots.py --snapshot-update, and look at the pictures.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from textual.pilot import Pilot

from localllm.tui.app import LocalLLMApp
from localllm.tui.widgets.prompt import Prompt
from tests.tui.support import StreamEngine, broken, chat_screen, opener, ready, say, scripted, shown, type_in, until

SIZES = [(80, 24), (120, 36)]

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


def make(engine: Any, *adapters: str) -> LocalLLMApp:
    return LocalLLMApp(opener(engine, *adapters, name="guide", title="The guide"), model="guide", clock=frozen)


async def settle(pilot: Pilot[Any]) -> None:
    chat_screen(pilot.app).query_one(Prompt).cursor_blink = False  # type: ignore[arg-type]
    await ready(pilot)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
def test_welcome(snap_compare: Any, size: tuple[int, int]):
    assert snap_compare(make(scripted(), "tickets"), terminal_size=size, run_before=settle)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
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
