"""The palette offers what works where it is opened, and does it there."""

from __future__ import annotations

from pathlib import Path

from textual.command import CommandPalette
from textual.widgets import Input

from localllm.tui.app import LocalLLMApp
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.screens.settings import SettingsScreen
from localllm.tui.widgets.sidebar import ChatList
from tests.tui.support import branch, opener, ready, say, scripted, until
from tests.tui.work_support import ScriptedJobs, app_with, beginning, ending, open_screen

SIZE = (100, 30)
EVERYWHERE = {"Help", "Theme", "Quit", "Choose a theme"}


def offered(app: LocalLLMApp) -> set[str]:
    return {command.title for command in app.get_system_commands(app.screen)}


async def test_in_the_chat_it_follows_the_focus():
    app = LocalLLMApp(opener(scripted("one", "two"), "tickets"))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "first")
        in_input = offered(app)
        assert in_input > EVERYWHERE | {"New conversation", "Handbook on or off", "Rename conversation", "Compare"}
        assert not in_input & {"Fine-tune", "Start", "Copy message", "Pin in the list", "Send"}
        await pilot.press("ctrl+up")
        assert offered(app) == in_input | {
            "Copy message", "Copy code of message", "Edit message", "Regenerate this reply", "Continue this reply",
            "Branch before", "Branch after", "Unfold", "Links",
        }  # fmt: skip
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*"regenerate this")
        await pilot.pause(0.6)
        await pilot.press("down", "enter")
        await until(pilot, lambda: branch(app)[-1][1] == "two")
        await ready(pilot)
        app.screen.query_one(ChatList).focus()
        await pilot.pause()
        assert offered(app) == in_input | {
            f"{what} in the list" for what in ("Rename", "Pin", "Delete", "Export")
        } | {"Undo"}  # fmt: skip


async def test_a_dialog_offers_what_it_can_do_and_nothing_of_what_is_below():
    app = LocalLLMApp(opener(scripted("one")))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("f4")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen))
        assert offered(app) == EVERYWHERE | {"Back", "Save"}
        app.screen.query_one("#p-temperature", Input).value = "0.5"
        save = next(command for command in app.get_system_commands(app.screen) if command.title == "Save")
        await save.callback()  # type: ignore[misc]
        await until(pilot, lambda: isinstance(app.screen, ChatScreen))
        await until(pilot, lambda: app.host._settings.sampling is not None)


async def test_on_the_screens_of_long_work_it_offers_what_can_be_done_now(tmp_path: Path):
    jobs = ScriptedJobs(tmp_path, [*beginning(80), *ending()])
    app = app_with(jobs, "tickets")
    async with app.run_test(size=SIZE) as pilot:
        await open_screen(pilot, "f6")
        assert offered(app) == EVERYWHERE | {"Fine-tune", "Batch", "Models", "Chat", "Start", "Check"}
        await pilot.press(*"tickets.jsonl", "ctrl+s")
        await until(pilot, lambda: jobs.training is not None and jobs.training.over)
        assert offered(app) == EVERYWHERE | {"Fine-tune", "Batch", "Models", "Chat", "Chat with it", "New run"}
        await pilot.press("f7")
        await until(pilot, lambda: getattr(app.screen, "PLACE", "") == "batch")
        assert offered(app) >= EVERYWHERE | {"Fine-tune", "Batch", "Models", "Chat", "Start", "Look"}
