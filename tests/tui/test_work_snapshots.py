"""What the fine-tune and the batch screen look like: small and dark, large and light. Everything is scripted.

After an intended change: pytest tests/tui/test_work_snapshots.py --snapshot-update, and look at the pictures.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from localllm.tui.theme import DARK, LIGHT
from tests.tui.support import shown
from tests.tui.work_support import (
    LEFT,
    ScriptedJobs,
    app_with,
    batch_beginning,
    batch_ending,
    beginning,
    ending,
    open_screen,
    when,
)

LOOKS = pytest.mark.parametrize(
    "size, theme", [((80, 24), DARK.name), ((140, 40), LIGHT.name)], ids=["80x24-dark", "140x40-light"]
)


async def opened(pilot: Pilot[Any], key: str, theme: str) -> Any:
    pilot.app.theme = theme
    screen = await open_screen(pilot, key)
    for field in (*screen.query(Input), *screen.query(TextArea)):
        field.cursor_blink = False
    return screen


@LOOKS
@pytest.mark.parametrize("state", ["form", "run", "done"])
def test_finetune(snap_compare: Any, tmp_path: Path, state: str, size: tuple[int, int], theme: str):
    gate = threading.Event()
    script = [*beginning(), gate] if state == "run" else [*beginning(80), *ending()]
    jobs = ScriptedJobs(tmp_path, script)
    jobs.left_runs = [LEFT]

    async def run(pilot: Pilot[Any]) -> None:
        await opened(pilot, "f6", theme)
        await pilot.press(*"tickets.jsonl", "f5")
        await when(pilot, lambda: "fits" in shown(pilot.app))
        if state != "form":
            await pilot.press("ctrl+s")
            said = "step 40 of 80" if state == "run" else "is ready"
            await when(pilot, lambda: said in shown(pilot.app))
            pilot.app.clear_notifications()
            await pilot.pause(0.1)

    assert snap_compare(app_with(jobs), terminal_size=size, run_before=run)
    gate.set()


@LOOKS
@pytest.mark.parametrize("state", ["form", "run", "result"])
def test_batch(
    snap_compare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, size: tuple[int, int], theme: str
):
    monkeypatch.chdir(tmp_path)  # so that no picture shows a temporary path
    Path("docs").mkdir()
    names = [f"docs/{name}" for name in ("bridge.md", "library.txt", "minutes of the meeting in spring.txt")]
    for name in names:
        Path(name).write_text("The library stays open until ten. " * 12)
    gate = threading.Event()
    script = [*batch_beginning(names[0], names[1]), gate, *batch_ending(names[1], names[2])]
    jobs = ScriptedJobs(tmp_path / "home", script)

    async def run(pilot: Pilot[Any]) -> None:
        screen = await opened(pilot, "f7", theme)
        screen.query_one("#paths", TextArea).text = "docs"
        await pilot.press("f5")
        await when(pilot, lambda: "3 files" in shown(pilot.app))
        if state != "form":
            await pilot.press("ctrl+s")
            await when(pilot, lambda: "1 of 3 documents" in shown(pilot.app))
        if state == "result":
            await pilot.press("enter")
            await when(pilot, lambda: "Parts (Enter" in shown(pilot.app))
            await pilot.pause(0.2)

    assert snap_compare(app_with(jobs), terminal_size=size, run_before=run)
    gate.set()
