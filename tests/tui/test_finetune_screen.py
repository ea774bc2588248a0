"""Every action of the fine-tune screen, on scripted runs; and one real run on the built-in model."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from textual.widgets import Button, Input, Select

from localllm.errors import DataError, TrainingError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tui.app import LocalLLMApp
from localllm.tui.events import ChatWith
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.screens.confirm import ConfirmScreen
from localllm.tui.screens.finetune import FinetuneScreen
from localllm.tui.widgets.paths import BrowseScreen, PathInput, complete
from localllm.tui.work.jobs import Jobs
from localllm.tune.events import Warned
from tests.tui.support import opener, ready, say, scripted, shown
from tests.tui.work_support import LEFT, ScriptedJobs, app_with, beginning, ending, open_screen, when

SIZE = (100, 40)
TICKETS = Path(__file__).parents[2] / "assets" / "tickets" / "train.jsonl"


async def test_data_are_checked_before_anything_starts(tmp_path: Path):
    jobs = ScriptedJobs(tmp_path)
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f6")
        assert isinstance(screen, FinetuneScreen)
        await pilot.press("f5")
        assert "There are no data to learn from yet" in shown(app)
        await pilot.press(*"rows.jsonl", "enter")
        await when(pilot, lambda: "Usable: nothing was found wrong" in shown(app))
        assert "108 rows to learn, 12 held out; 80 steps" in shown(app)
        assert "fits" in shown(app)
        jobs.previewed = DataError("rows.jsonl cannot be read.", "Check the path.")
        await pilot.click("#do-check")
        await when(pilot, lambda: "rows.jsonl cannot be read." in shown(app))
        assert "Check the path." in shown(app)
    assert jobs.asked == []


async def test_the_form_says_what_cannot_be_meant_and_asks_for_the_rest(tmp_path: Path):
    jobs = ScriptedJobs(tmp_path, [*beginning(2)])
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f6")
        await pilot.press(*"rows.jsonl")
        screen.query_one("#epochs", Input).value = "many"
        await pilot.press("ctrl+s")
        assert "Epochs must be a whole number, not 'many'" in shown(app)
        for name, value in {"epochs": "3", "learning_rate": "1e-3", "name": "mine", "test": "test.jsonl"}.items():
            screen.query_one(f"#{name}", Input).value = value
        screen.query_one("#too_long", Select).value = "split"
        screen.query_one("#overwrite", Select).value = "yes"
        await pilot.click("#do-start")
        await when(pilot, lambda: jobs.training is not None and jobs.training.over)
    (asked,) = jobs.asked
    assert (asked.name, asked.epochs, asked.learning_rate, asked.rank) == ("mine", 3, 1e-3, 16)
    assert (asked.data, asked.test) == (Path("rows.jsonl"), Path("test.jsonl"))
    assert (asked.too_long, asked.train_on, asked.overwrite, asked.restart) == ("split", "assistant", True, False)
    assert asked.report
    assert not asked.resume


async def test_a_run_is_drawn_while_it_goes_on_and_survives_leaving_the_screen(tmp_path: Path):
    gate = threading.Event()
    jobs = ScriptedJobs(tmp_path, [*beginning(), gate, *beginning(80)[-44:], *ending()])
    app = app_with(jobs, "tickets")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await open_screen(pilot, "f6")
        await pilot.press(*"tickets.jsonl", "ctrl+s")
        await when(pilot, lambda: "step 40 of 80" in shown(app))
        text = shown(app)
        assert "epoch 2 of 4 · 812 tokens/s · 0:20 left · memory 384 MB" in text
        assert "◆ validation 0.8" in text
        assert any("⠀" < character <= "⣿" for character in text)
        await pilot.press("escape")
        assert isinstance(app.screen, ChatScreen)
        gate.set()
        await when(pilot, lambda: "tickets is done" in shown(app))
        await pilot.press("f6")
        await when(pilot, lambda: "The adapter tickets is ready." in shown(app))
        assert "0% before, 93% after" in shown(app)
        assert "Nothing forgotten" in shown(app)
        await pilot.press("c")
        await when(pilot, lambda: "tickets" in (str(app.host._chat.adapter) if app.host._chat else ""))
        assert isinstance(app.screen, ChatScreen)
        state = app.screen.state
        assert state is not None
        assert (state.model, state.adapter) == ("fake", "tickets")


async def test_chat_with_an_adapter_of_another_model_opens_that_model(tmp_path: Path):
    app = LocalLLMApp(opener(scripted("one"), "tickets", beside=scripted("two")), jobs=ScriptedJobs(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f6")
        screen.post_message(ChatWith("other", "tickets"))
        await when(pilot, lambda: isinstance(app.screen, ChatScreen))
        chat = await ready(pilot)
        assert chat.state is not None
        assert (chat.state.model, chat.state.adapter) == ("other", "tickets")
        await say(pilot, "hello")
        assert app.store.turns.branch(1)[-1].author == "other + adapter tickets"


async def test_pause_and_go_on(tmp_path: Path):
    jobs = ScriptedJobs(tmp_path, [*beginning(), threading.Event()], [*beginning(80, 40), *ending()])
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        await open_screen(pilot, "f6")
        await pilot.press(*"tickets.jsonl", "ctrl+s")
        await when(pilot, lambda: "step 40 of 80" in shown(app))
        await pilot.press("p")
        await when(pilot, lambda: "Paused. Stopped; step 40 of 80 is saved." in shown(app))
        await pilot.press("g")
        await when(pilot, lambda: "The adapter tickets is ready." in shown(app))
        await pilot.press("n")
        await pilot.pause()
        assert app.screen.query_one("#data").display
    first, second = jobs.asked
    assert not first.resume
    assert second.resume


async def test_stop_and_keep_best_of_a_run_that_goes_on_and_of_one_that_is_paused(tmp_path: Path):
    jobs = ScriptedJobs(tmp_path, [*beginning(), threading.Event()], [*beginning(41, 40), *ending()])
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        await open_screen(pilot, "f6")
        await pilot.press(*"tickets.jsonl", "ctrl+s")
        await when(pilot, lambda: "step 40 of 80" in shown(app))
        await pilot.press("b")
        await when(pilot, lambda: "ending with the best" in shown(app))
        assert jobs.best_asked == 1
        await pilot.press("p")
        await when(pilot, lambda: "Paused." in shown(app))
        await pilot.click("#do-keep_best")
        await when(pilot, lambda: "The adapter tickets is ready." in shown(app))
    assert jobs.asked[1].finish
    assert jobs.asked[1].resume


async def test_runs_that_were_left_are_offered(tmp_path: Path):
    jobs = ScriptedJobs(tmp_path, [*beginning(80, 40), *ending("cats")])
    jobs.left_runs = [LEFT]
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f6")
        assert "cats was left at step 12 of 48" in shown(app)
        drop = next(b for b in screen.query(Button) if b.name == "run-drop-0")
        drop.press()
        await when(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("escape")
        await pilot.pause()
        assert jobs.left_runs == [LEFT]
        next(b for b in screen.query(Button) if b.name == "run-go-0").press()
        await when(pilot, lambda: "The adapter cats is ready." in shown(app))
        assert jobs.asked == [LEFT.request]
        await pilot.press("n")
        await when(pilot, lambda: "cats was left" in shown(app))
        next(b for b in screen.query(Button) if b.name == "run-drop-0").press()
        await when(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await when(pilot, lambda: "cats was left" not in shown(app))
    assert jobs.left_runs == []


async def test_a_failure_is_shown_with_its_hint_and_no_escape_reaches_the_screen(tmp_path: Path):
    evil = "\x1b]52;c;aGk=\x07"
    jobs = ScriptedJobs(tmp_path, [Warned(f"row {evil}"), TrainingError(f"It diverged {evil}.", "Use a smaller rate.")])
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        await open_screen(pilot, "f6")
        await pilot.press(*"tickets.jsonl", "ctrl+s")
        await when(pilot, lambda: "Use a smaller rate." in shown(app))
        assert "It diverged ␛]52;c;aGk=␇." in shown(app)
        assert "\x1b" not in shown(app)


async def test_a_path_is_completed_and_browsed(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.jsonl").write_text("{}\n")
    assert complete(f"{tmp_path}/da") == f"{tmp_path}/data/"
    assert complete(f"{tmp_path}/data/ro") == f"{tmp_path}/data/rows.jsonl"
    assert complete(f"{tmp_path}/none/ro") is None
    assert complete("") is None
    app = app_with(ScriptedJobs(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f6")
        data = screen.query_one(PathInput)
        data.value = f"{tmp_path}/data/r"
        data.cursor_position = len(data.value)
        await when(pilot, lambda: bool(data._suggestion))
        await pilot.press("tab")
        assert data.value == f"{tmp_path}/data/rows.jsonl"
        data.value = f"{tmp_path}/data"
        await pilot.click("#browse")
        await when(pilot, lambda: isinstance(app.screen, BrowseScreen) and "rows.jsonl" in shown(app))
        await pilot.press("down", "enter")
        await when(pilot, lambda: app.screen is screen)
        assert data.value == f"{tmp_path}/data/rows.jsonl"


async def test_one_run_at_a_time_and_quitting_keeps_it(tmp_path: Path):
    jobs = ScriptedJobs(tmp_path, [*beginning(), threading.Event()])
    app = app_with(jobs)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_screen(pilot, "f6")
        await pilot.press(*"tickets.jsonl", "ctrl+s")
        await when(pilot, lambda: "step 40 of 80" in shown(app))
        await pilot.press("f6", "f1", "f1")
        assert isinstance(app.screen, FinetuneScreen)
    lines = jobs.close()
    assert lines == ["tickets: Stopped; step 40 of 80 is saved. The same command goes on from there."]


@pytest.mark.long
async def test_a_real_run_is_paused_found_again_and_ended_with_the_best(tmp_path: Path):
    home = Registry(Home(tmp_path))
    jobs = Jobs(home, "guide")
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f6")
        screen.query_one("#data", Input).value = str(TICKETS)
        screen.query_one("#name", Input).value = "tickets"
        screen.query_one("#max_steps", Input).value = "400"
        await pilot.press("f5")
        await when(pilot, lambda: "Memory: about" in shown(app))
        await pilot.press("ctrl+s")
        for _ in range(60):
            if jobs.training is not None and jobs.training.step > 2:
                break
            await pilot.pause(1)
        await pilot.press("p")
        await when(pilot, lambda: "is saved" in shown(app))
    jobs.close()
    jobs = Jobs(home, "guide")
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f6")
        assert "tickets was left at step" in shown(app)
        next(b for b in screen.query(Button) if b.name == "run-best-0").press()
        for _ in range(120):
            if jobs.training is not None and jobs.training.over:
                break
            await pilot.pause(1)
        await when(pilot, lambda: "The adapter tickets is ready." in shown(app))
        assert jobs.training is not None
        assert jobs.training.train[0][0] == 1  # the curve goes back to the first step
    assert [adapter.name for adapter in home.adapters()] == ["tickets"]
