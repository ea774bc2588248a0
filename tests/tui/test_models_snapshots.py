"""What the models screen looks like: small and dark, large and light, and without colour. Everything is scripted.

After an intended change: pytest tests/tui/test_models_snapshots.py --snapshot-update, and look at the pictures.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from localllm.errors import AccessError
from localllm.tui.theme import DARK, LIGHT
from tests.tui.models_support import beginning, open_models, scripted_jobs, search
from tests.tui.support import shown
from tests.tui.work_support import app_with, when

LOOKS = pytest.mark.parametrize(
    "size, theme", [((80, 24), DARK.name), ((140, 40), LIGHT.name)], ids=["80x24-dark", "140x40-light"]
)


async def drive(pilot: Pilot[Any], theme: str, state: str, library: Any) -> None:
    pilot.app.theme = theme
    screen = await open_models(pilot, 30)
    screen.query_one(Input).cursor_blink = False
    if state in ("choose", "download"):
        await search(pilot, "qwen3-0.6b")
        await pilot.press("enter")
        await when(pilot, lambda: "which weights" in shown(pilot.app))
    if state == "download":
        await pilot.press("enter")
        await when(pilot, lambda: "25%" in shown(pilot.app))
    if state == "refused":
        page = "https://huggingface.co/me/gated"
        hint = f"Accept its conditions on {page}, then run `hf auth login` or set HF_TOKEN, and pull again."
        library.found = AccessError("me/gated is gated, and there is no token.", hint)
        await search(pilot, "me/gated")
        await pilot.press("enter")
        await when(pilot, lambda: "gated, and" in shown(pilot.app))
    await pilot.pause(0.1)


@LOOKS
@pytest.mark.parametrize("state", ["list", "download"])
def test_models(snap_compare: Any, tmp_path: Path, state: str, size: tuple[int, int], theme: str):
    gate = threading.Event()
    jobs, library = scripted_jobs(tmp_path, [*beginning(), gate])

    async def run(pilot: Pilot[Any]) -> None:
        await drive(pilot, theme, state, library)

    assert snap_compare(app_with(jobs), terminal_size=size, run_before=run)
    gate.set()


@pytest.mark.parametrize("state", ["choose", "refused"])
def test_questions_to_the_hub(snap_compare: Any, tmp_path: Path, state: str):
    jobs, library = scripted_jobs(tmp_path)

    async def run(pilot: Pilot[Any]) -> None:
        await drive(pilot, DARK.name, state, library)

    assert snap_compare(app_with(jobs), terminal_size=(80, 24), run_before=run)


def test_no_color(snap_compare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    jobs, library = scripted_jobs(tmp_path)

    async def run(pilot: Pilot[Any]) -> None:
        await drive(pilot, DARK.name, "list", library)

    assert snap_compare(app_with(jobs), terminal_size=(80, 24), run_before=run)
