"""The line of keys at the bottom: what it shows, and what the mouse does in it."""

from __future__ import annotations

import asyncio
from typing import Any

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.pilot import Pilot

from localllm.tui.widgets.keybar import KeyBar
from tests.tui.support import shown


class Keys(App[None]):
    """Counts what was pressed; `b` can be switched off."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [
        Binding("a,z", "press('a')", "Alpha"),
        Binding("b", "press('b')", "Beta"),
        Binding("c", "press('c')", "Gamma"),
        Binding("d", "press('d')", "Hidden", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.pressed: list[str] = []
        self.off = False
        self.bells = 0

    def compose(self) -> ComposeResult:
        yield KeyBar()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return None if self.off and parameters == ("b",) else True

    def action_press(self, key: str) -> None:
        self.pressed.append(key)

    def bell(self) -> None:
        self.bells += 1


def run(*steps: Any, width: int = 60) -> Keys:
    app = Keys()

    async def main() -> None:
        async with app.run_test(size=(width, 3)) as pilot:
            await pilot.pause()
            for step in steps:
                await step(pilot)
                await pilot.pause()

    asyncio.run(main())
    return app


def line(pilot: Pilot[Any]) -> str:
    return shown(pilot.app).splitlines()[-1]


def colour(pilot: Pilot[Any], name: str) -> Any:
    """What a name is written in."""
    strip = pilot.app.screen._compositor.render_strips()[-1]
    return next(segment.style.color for segment in strip if name in segment.text and segment.style is not None)


def test_each_action_is_shown_once_with_its_first_key() -> None:
    async def look(pilot: Pilot[Any]) -> None:
        assert " a Alpha  b Beta  c Gamma " in line(pilot)
        assert "Hidden" not in line(pilot)
        assert " z " not in line(pilot)

    run(look)


def test_a_click_presses_the_key_below_it() -> None:
    async def click(pilot: Pilot[Any]) -> None:
        for name in ("Gamma", "Alpha", "Beta"):
            await pilot.click(KeyBar, offset=(line(pilot).index(name), 0))
        await pilot.click(KeyBar, offset=(50, 0))

    assert run(click).pressed == ["c", "a", "b"]


def test_a_key_that_does_nothing_now_is_dim_and_rings() -> None:
    async def click(pilot: Pilot[Any]) -> None:
        assert colour(pilot, "Beta") == colour(pilot, "Gamma")
        pilot.app.off = True  # type: ignore[attr-defined]
        pilot.app.refresh_bindings()
        await pilot.pause()
        assert colour(pilot, "Beta") != colour(pilot, "Gamma")
        await pilot.click(KeyBar, offset=(line(pilot).index("Beta"), 0))

    app = run(click)
    assert (app.pressed, app.bells) == ([], 1)


def test_the_wheel_brings_keys_into_view_that_have_no_room() -> None:
    async def scroll(pilot: Pilot[Any]) -> None:
        assert "Gamma" not in line(pilot)
        bar = pilot.app.query_one(KeyBar)
        for _ in range(4):
            await pilot._post_mouse_events([events.MouseScrollDown], bar)
        assert "Gamma" in line(pilot)
        await pilot.click(KeyBar, offset=(line(pilot).index("Gamma"), 0))
        for _ in range(4):
            await pilot._post_mouse_events([events.MouseScrollUp], bar)
        assert line(pilot).startswith(" a Alpha")

    assert run(scroll, width=16).pressed == ["c"]
