"""Every action of the batch screen, on scripted batches; and one real batch on the built-in model."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Button, Collapsible, DataTable, Input, Select, TextArea

from localllm.errors import EngineError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.summary_here import BatchRequest, forget, left, listing, results, text_of
from localllm.tui.screens.batch import BatchScreen
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.screens.result import ResultScreen
from localllm.tui.work.jobs import Jobs
from tests.tui.support import shown
from tests.tui.work_support import ScriptedJobs, app_with, batch_beginning, batch_ending, open_screen, row, when

SIZE = (120, 40)
NOTES = Path(__file__).parents[2] / "assets" / "notes"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three documents, a hidden file and one of another kind."""
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.txt", ".hidden.txt", "program.exe"):
        (folder / name).write_text("The library stays open until ten. " * 12)
    return folder


def names(folder: Path) -> list[str]:
    return [str(folder / name) for name in ("a.txt", "b.txt", "c.txt")]


async def test_what_will_be_read_is_shown_before_it_is(tmp_path: Path, folder: Path):
    jobs = ScriptedJobs(tmp_path)
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f7")
        assert isinstance(screen, BatchScreen)
        await pilot.press("f5")
        assert "There are no documents yet" in shown(app)
        screen.query_one("#paths", TextArea).text = f"'{folder}'\n{folder}/none.txt"
        await pilot.press("f5")
        await when(pilot, lambda: "4 files" in shown(app))
        assert "passed over: 1 hidden, 1 of other kinds" in shown(app)
        assert "not there" in shown(app)
        screen.query_one("#paths", TextArea).text = str(tmp_path / "docs" / ".git")
        (tmp_path / "docs" / ".git").mkdir()
        await pilot.click("#do-look")
        await when(pilot, lambda: "Nothing that can be read" in shown(app))
    assert jobs.asked == []


async def test_documents_finish_one_by_one_and_open_also_after_leaving(tmp_path: Path, folder: Path):
    a, b, c = names(folder)
    gate = threading.Event()
    jobs = ScriptedJobs(tmp_path, [*batch_beginning(a, b), gate, *batch_ending(b, c)])
    app = app_with(jobs, "tickets")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        screen = await open_screen(pilot, "f7")
        screen.query_one("#paths", TextArea).text = str(folder)
        screen.query_one("#out", Input).value = str(tmp_path / "out.jsonl")
        screen.query_one("#style", Select).value = "bullets"
        screen.query_one("#length", Select).value = "short"
        screen.query_one("#focus", Input).value = "when?"
        screen.query_one("#redo", Select).value = "yes"
        await pilot.press("ctrl+s")
        await when(pilot, lambda: "1 of 3 documents" in shown(app))
        text = shown(app)
        assert "240 tokens/s · 1:15 left" in text
        assert "part 2/5" in text
        assert "waiting" in text
        await pilot.press("enter")
        await when(pilot, lambda: isinstance(app.screen, ResultScreen))
        assert "The library stays open until ten." in shown(app)
        await pilot.press("escape")
        await when(pilot, lambda: app.screen is screen)
        await pilot.press("escape")
        await when(pilot, lambda: isinstance(app.screen, ChatScreen))
        gate.set()
        await when(pilot, lambda: "out.jsonl is done" in shown(app))
        await pilot.press("f7")
        await when(pilot, lambda: "3 of 3 documents · 7 parts · 1 FAILED" in shown(app))
        await when(pilot, lambda: "built in 1907" in shown(app))
        app.screen.query_one(DataTable).move_cursor(row=2)
        await pilot.press("enter")
        await when(pilot, lambda: "Not summarized:" in shown(app))
        await pilot.press("escape")
        await pilot.click("#do-new")
        assert app.screen.query_one("#setup").display
    (asked,) = jobs.asked
    assert isinstance(asked, BatchRequest)
    assert (asked.wish.style, asked.wish.length, asked.wish.focus, asked.wish.language) == (
        "bullets", "short", "when?", None,
    )  # fmt: skip
    assert (asked.paths, asked.redo, asked.retry_failed, asked.adapter) == ((folder,), True, False, None)


async def test_stop_keeps_and_goes_on(tmp_path: Path, folder: Path):
    a, b, c = names(folder)
    jobs = ScriptedJobs(tmp_path, [*batch_beginning(a, b), threading.Event()], batch_ending(b, c))
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f7")
        screen.query_one("#paths", TextArea).text = str(folder)
        screen.query_one("#out", Input).value = str(tmp_path / "out.jsonl")
        (tmp_path / "out.jsonl").write_text(json.dumps(row(a)) + "\n")
        await pilot.click("#do-start")
        await when(pilot, lambda: "1 of 3 documents" in shown(app))
        await pilot.press("s")
        await when(pilot, lambda: "Stopped" in shown(app) and "not done" in shown(app))
        await pilot.press("g")
        await when(pilot, lambda: "3 of 3 documents" in shown(app))
        assert shown(app).count(" done ") >= 2  # the row of the first run is among them
    assert jobs.asked[0] == jobs.asked[1]


async def test_a_failure_is_shown_with_its_hint(tmp_path: Path, folder: Path):
    jobs = ScriptedJobs(tmp_path, [EngineError("The model died.", "Take a smaller one.")])
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f7")
        screen.query_one("#paths", TextArea).text = str(folder)
        await pilot.press("ctrl+s")
        await when(pilot, lambda: "Take a smaller one." in shown(app))
        assert "failed" in shown(app)


async def test_results_of_another_day_are_opened(tmp_path: Path):
    source = tmp_path / "evil.txt"
    source.write_text("text")
    evil: dict[str, Any] = row(str(source), "It \x1b]52;c;aGk=\x07 reads.")
    (tmp_path / "out.jsonl").write_text(json.dumps(evil) + "\n")
    app = app_with(ScriptedJobs(tmp_path))
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f7")
        screen.query_one("#out", Input).value = str(tmp_path / "none.jsonl")
        await pilot.press("ctrl+r")
        assert "none.jsonl" in shown(app)
        screen.query_one("#out", Input).value = str(tmp_path / "out.jsonl")
        await pilot.press("ctrl+r")
        await when(pilot, lambda: "1 of 1 documents" in shown(app))
        await pilot.press("enter")
        await when(pilot, lambda: isinstance(app.screen, ResultScreen))
        app.screen.query_one(Collapsible).collapsed = False
        await when(pilot, lambda: "has changed" in " ".join(shown(app).replace("│", " ").split()))  # a path may wrap
        assert "␛]52;c;aGk=␇" in shown(app)
        assert "\x1b" not in shown(app)


def test_a_listing_counts_and_an_output_of_something_else_is_refused(tmp_path: Path, folder: Path):
    found = listing((folder,))
    assert (found.count, found.bytes, found.hidden, found.other) == (3, 3 * 408, 1, 1)
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    with pytest.raises(Exception, match="is no summary"):
        results(tmp_path / "rows.jsonl")


@pytest.mark.long
async def test_a_real_batch_is_stopped_offered_again_and_read(tmp_path: Path):
    home = Registry(Home(tmp_path))
    jobs = Jobs(home, "guide", n_threads=1)
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_screen(pilot, "f7")
        screen.query_one("#paths", TextArea).text = str(NOTES)
        screen.query_one("#out", Input).value = str(tmp_path / "out.md")
        await pilot.press("ctrl+s")
        for _ in range(60):
            if jobs.batch is not None and jobs.batch.documents and left(home.home) is not None:
                break
            await pilot.pause(0.2)
        jobs.close()
        assert jobs.batch is not None
    if jobs.batch.status == "done":  # faster than the stop
        assert left(home.home) is None
    else:
        asked = left(home.home)
        assert asked is not None
        jobs = Jobs(home, "guide", n_threads=1)
        app = app_with(jobs)
        async with app.run_test(size=SIZE) as pilot:
            screen = await open_screen(pilot, "f7")
            assert "was left" in shown(app)
            next(b for b in screen.query(Button) if b.name == "left-go").press()
            for _ in range(300):
                if jobs.batch is not None and jobs.batch.over:
                    break
                await pilot.pause(0.2)
            await when(pilot, lambda: "2 of 2 documents" in shown(app))
    rows = results(tmp_path / "out.md")
    assert sorted(Path(row["source"]).name for row in rows) == ["bridge.md", "library.txt"]
    assert all(row["summary"] for row in rows)
    assert text_of(rows[1]).startswith("The reading room")
    assert left(home.home) is None
    forget(home.home)
