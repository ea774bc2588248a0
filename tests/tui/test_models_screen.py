"""Every action of the models screen: scripted ones, and downloads from the test hub into a cache of their own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, OptionList, Static

from localllm.errors import TransferError
from localllm.hub.surroundings import Surroundings
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tui.app import LocalLLMApp
from localllm.tui.screens import models as models_screen
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.screens.choose import ChooseScreen
from localllm.tui.screens.confirm import ConfirmScreen
from localllm.tui.screens.models import ModelsScreen
from localllm.tui.widgets.header import ChatHeader
from localllm.tui.widgets.modeltable import ModelTable
from localllm.tui.work.jobs import Jobs
from localllm.tui.work.models import Models
from tests.hub.conftest import QUICK
from tests.hub.server import HubServer, serving
from tests.store.foreign.places import ollama
from tests.tui.models_support import beginning, ending, names, open_models, progress, scripted_jobs, search
from tests.tui.support import opener, ready, scripted, shown
from tests.tui.work_support import app_with, when

SIZE = (120, 34)


# Looking


async def test_rows_that_come_while_the_screen_is_left_are_let_go(tmp_path: Path):
    jobs, _ = scripted_jobs(tmp_path)
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_models(pilot, 30)
        leaving = asyncio.ensure_future(pilot.press("escape"))
        while not leaving.done():
            screen._take_rows(screen.all[:1], None)
            await asyncio.sleep(0)
        assert isinstance(app.screen, ChatScreen)


async def test_everything_is_listed_searched_and_told_of(tmp_path: Path):
    jobs, _ = scripted_jobs(tmp_path)
    app = app_with(jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_models(pilot, 30)
        table = screen.query_one(ModelTable)
        text = shown(app)
        assert "5 here, 25 to download" in text
        for said in ("✓ fits", "≈ tight", "✗ too big", "! broken", "cats, tickets", "~82 MB", "Ollama", "catalog"):
            assert said in text, said
        for said in ("Licence: Apache-2.0", "English, German", "calling tools", "/home/me/models"):
            assert said in text, said
        assert "8.0 GB are free: ✓ fits" in " ".join(str(screen.query_one("#facts", Static).content).split())
        assert "\x1b" not in text
        assert "\u202e" not in text
        await search(pilot, "thai tools")
        assert {"llama-3.2-3b", "llama-3.1-8b"} <= set(names(screen))
        assert "guide" not in names(screen)
        await pilot.press("up")
        search_input = screen.query_one("#search", Input)
        await when(pilot, lambda: search_input.has_focus)
        await pilot.press("d", "c")  # letters are typed, and do nothing else
        assert search_input.value == "dc"  # what was there is selected, and replaced
        assert "Nothing here is called that" in shown(app)
        await pilot.press("escape")
        assert table.has_focus
        assert len(names(screen)) == 30
        await pilot.press("escape")
        await when(pilot, lambda: isinstance(app.screen, ChatScreen))


async def test_what_cannot_be_done_is_not_offered_and_everything_else_is_in_the_palette(tmp_path: Path):
    jobs, _ = scripted_jobs(tmp_path)
    app = app_with(jobs, keys={"app.models": "f9,f10", "models.delete": "k"})
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert "F6 Tune  F7 Batch  F9 Models" in shown(app)
        offered = {command.title for command in app.get_system_commands(app.screen)}
        assert "Models" in offered
        screen = await open_models(pilot)
        by_row = {
            "guide": {"Chat with it", "Hash"},
            "other": {"Chat with it", "Hash", "Delete"},
            "ollama:phi4-mini:3.8b": {"Chat with it", "Hash"},
            "qwen3-0.6b": {"Download"},
        }
        table = screen.query_one(ModelTable)
        every = {"Chat with it", "Hash", "Delete", "Download", "Forget folder", "Stop", "Go on", "Dismiss"}
        for name, expected in by_row.items():
            table.move_cursor(row=names(screen).index(name))
            await pilot.pause()
            offered = {command.title for command in app.get_system_commands(screen)}
            assert offered & every == expected, name
            assert {"Search", "Add folder", "Refresh", "Models", "Fine-tune"} <= offered
        table.move_cursor(row=names(screen).index("other"))
        await pilot.press("d")
        assert app.screen is screen
        await pilot.press("k")  # the person's own key; the model is only scripted
        assert "There is no model named 'other'" in shown(app)
        await pilot.click("Navigation Static")
        await when(pilot, lambda: "Fine-tune" in shown(app) and app.screen is not screen)


# Chatting


async def test_a_model_that_is_here_takes_over_the_chat(tmp_path: Path):
    jobs, _ = scripted_jobs(tmp_path)
    other = scripted("from the other")
    app = LocalLLMApp(opener(scripted(), name="guide", beside=other), model="guide", jobs=jobs)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_models(pilot)
        table = screen.query_one(ModelTable)
        assert table.highlighted is not None
        assert table.highlighted.name == "guide"
        assert "● guide" in shown(app)
        table.move_cursor(row=4)
        await pilot.press("enter")
        assert "cannot be used: it is no GGUF" in " ".join(shown(app).split())
        table.move_cursor(row=1)
        await pilot.press("enter")
        await when(pilot, lambda: isinstance(app.screen, ChatScreen))
        chat = await ready(pilot)
        assert chat.query_one(ChatHeader).model == "other"


async def test_the_switcher_of_the_chat_says_what_fits_and_leads_here(tmp_path: Path, guide_path: Path):
    jobs, _ = scripted_jobs(tmp_path)
    app = app_with(jobs)
    async with app.run_test(size=(80, 24)) as pilot:
        chat = await ready(pilot)
        registry: Any = chat.host._chat.registry  # type: ignore[union-attr]
        shutil.copy(guide_path, tmp_path / "small.gguf")
        model = registry.models()[0]
        registry.models = lambda: [type(model)("small", tmp_path / "small.gguf", "home"), model]
        await pilot.press("ctrl+o")
        await when(pilot, lambda: isinstance(app.screen, ChooseScreen))
        await when(pilot, lambda: "small · ✓ fits" in shown(app))
        assert "a chat takes about" in shown(app)
        assert "fake · ! broken" in shown(app)
        await pilot.press("end", "enter")
        await when(pilot, lambda: isinstance(app.screen, ModelsScreen))


# Downloads, scripted


async def test_a_download_is_chosen_watched_left_and_stopped(tmp_path: Path):
    gate = threading.Event()
    script = [*beginning(), gate]
    jobs, library = scripted_jobs(tmp_path, script, [progress(0.5), *ending()])
    app = app_with(jobs)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        screen = await open_models(pilot)
        await search(pilot, "qwen3-0.6b")
        await pilot.press("enter")
        await when(pilot, lambda: "which weights?" in shown(app))
        text = shown(app)
        for said in ("Q4_K_M · 484 MB · ✓ fits", "Q8_0 · 7.0 GB · ≈ tight", "F16 · 9.0 GB · ✗ too big", "unasked"):
            assert said in text, said
        await pilot.press("down", "down", "enter")  # too big: asked once more
        await when(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("escape")
        await pilot.press("g")
        await when(pilot, lambda: isinstance(app.screen, ChooseScreen))
        await pilot.press("enter")
        await when(pilot, lambda: "25% 121.0 MB of 484.0 MB" in shown(app))
        assert "12.3 MB/s · 0:30 left" in shown(app)
        assert "m-Q4_K_M.gguf 25%" in shown(app)
        await pilot.press("g")
        await when(pilot, lambda: isinstance(app.screen, ChooseScreen))
        await pilot.press("enter")
        assert "is being downloaded. " in " ".join(shown(app).replace("→", "").split())
        await pilot.press("escape", "f6")
        await when(pilot, lambda: app.screen is not screen)
        await pilot.press("f9")
        await when(pilot, lambda: "25%" in shown(app) and isinstance(app.screen, ModelsScreen))
        await pilot.press("s")
        await when(pilot, lambda: "have arrived and are kept" in shown(app))
        await pilot.press("r")
        await when(pilot, lambda: "is done" in shown(app))
        app.clear_notifications()
        await when(pilot, lambda: "✓ ready" in shown(app))
        await pilot.press("x")
        assert "✓ ready" not in shown(app)
    assert library.requests[0] == library.requests[1]
    assert library.requests[0].reference == "Qwen/Qwen3-0.6B-GGUF:Q4_K_M"
    assert not library.requests[0].force


async def test_a_failed_download_says_why_and_goes_on(tmp_path: Path):
    error = TransferError("The connection broke off.", "What has arrived is kept: try again.")
    jobs, library = scripted_jobs(tmp_path, [*beginning(), error], [*ending()])
    app = app_with(jobs)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_models(pilot)
        await search(pilot, "someone/GGUF")
        assert library.asked == []  # nothing is sent anywhere while it is typed
        await pilot.press("enter")
        await when(pilot, lambda: len(names(screen)) == 3)
        assert names(screen)[0] == "Qwen/Qwen3-0.6B-GGUF:Q4_K_M"
        screen.query_one(ModelTable).move_cursor(row=1)
        await pilot.click("#do-get")  # tight: the person has seen it
        await when(pilot, lambda: "→ What has arrived is kept: try again." in shown(app))
        await pilot.click("#do-go_on")
        await when(pilot, lambda: "✓ ready" in shown(app))
    assert library.requests[0].reference == "Qwen/Qwen3-0.6B-GGUF:Q8_0"
    assert library.requests[0].force


# With the test hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    with serving() as server:
        yield server


def real_app(hub: HubServer, tmp_path: Path, home: Home) -> tuple[LocalLLMApp, Jobs]:
    """An app whose models are real, and whose hub is the test's."""
    jobs = Jobs(Registry(home), "guide")
    here = Surroundings(hub.endpoint, tmp_path / "hf" / "hub", timeout=2.0)
    jobs.library = Models(jobs.registry, None, lambda job: jobs._ended(job), here, QUICK)
    return app_with(jobs), jobs


async def test_a_download_goes_on_after_the_app_was_left(tmp_path: Path, home: Home, hub: HubServer, guide_path: Path):
    hub.repo("Qwen/Qwen3-0.6B-GGUF", {f"m-{q}.gguf": guide_path for q in ("Q4_K_M", "Q8_0")})
    hub.rate = 2_000_000
    app, jobs = real_app(hub, tmp_path, home)
    async with app.run_test(size=SIZE) as pilot:
        await open_models(pilot)
        await search(pilot, "qwen3-0.6b")
        await pilot.press("enter")
        await when(pilot, lambda: isinstance(app.screen, ChooseScreen))
        await pilot.press("enter")
        await when(pilot, lambda: jobs.library.download is not None and jobs.library.download.done > 1_000_000)
        lines = jobs.close()
    assert "Q8_0" in lines[0]
    sent = hub.bytes_sent()
    assert Registry(home).pulled() == []
    hub.rate = 0
    app, jobs = real_app(hub, tmp_path, home)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_models(pilot)
        assert "was left before it was complete" in shown(app)
        await pilot.press("r")
        await when(pilot, lambda: "✓ ready" in shown(app))
        await when(pilot, lambda: "qwen3-0.6b:Q8_0" in names(screen))  # the catalog's name
        await search(pilot, "qwen3-0.6b")
        assert "pulled" in shown(app)
        screen.query_one(ModelTable).move_cursor(row=1)
        await when(pilot, lambda: "Already: on this machine as Q8_0" in shown(app))
    size = guide_path.stat().st_size
    assert hub.bytes_sent() - sent < size - 900_000  # what had arrived was not fetched again
    assert jobs.library.left() is None


async def test_what_the_hub_refuses_is_one_line_with_what_to_do(
    tmp_path: Path, home: Home, hub: HubServer, guide_path: Path
):
    hub.repo("me/gated", {"m-Q4_0.gguf": guide_path}, gated="auto")
    app, _ = real_app(hub, tmp_path, home)
    async with app.run_test(size=SIZE) as pilot:
        await open_models(pilot)
        for name, said in (
            ("me/gated", f"Accept its conditions on {hub.endpoint}/me/gated"),
            ("me/gatd", "Did you mean me/gated?"),
        ):
            await search(pilot, name)
            await pilot.press("enter")
            await when(pilot, lambda said=said: said in shown(app))
        hub.fault("hang", "hub", seconds=2.0)
        await search(pilot, "me/x")
        await pilot.press("enter")
        await when(pilot, lambda: "Esc stops" in shown(app))
        await pilot.press("escape")
        await when(pilot, lambda: "Not asked any more" in shown(app))


async def test_deleting_says_what_breaks_and_never_touches_what_others_keep(
    tmp_path: Path, home: Home, hub: HubServer, guide_path: Path
):
    home.models.mkdir(parents=True)
    shutil.copy(guide_path, home.models / "mine.gguf")
    adapter = home.adapters / "cats"
    adapter.mkdir(parents=True)
    (adapter / "adapter.gguf").write_bytes(b"GGUF")
    (adapter / "adapter.json").write_text(json.dumps({"base": {"name": "mine"}}))
    ollama(tmp_path / "ollama", "library/tiny/1b", [("model", guide_path.read_bytes())])
    hub.repo("me/m", {"m-Q4_0.gguf": guide_path})
    app, _ = real_app(hub, tmp_path, home)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_models(pilot)
        table = screen.query_one(ModelTable)
        table.move_cursor(row=names(screen).index("ollama:tiny:1b"))
        await pilot.press("d", "delete")
        assert app.screen is screen
        screen.action_delete()  # as of a key of the person's own
        await pilot.pause()
        assert "it belongs to Ollama" in shown(app)
        assert "ollama rm tiny:1b" in shown(app)
        table.move_cursor(row=names(screen).index("mine"))
        await pilot.press("d")
        await when(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "these adapters cannot be used: cats" in " ".join(shown(app).replace("│", "").split())
        await pilot.press("n", "d")
        await when(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await when(pilot, lambda: "mine" not in names(screen))
        assert not (home.models / "mine.gguf").exists()
        await search(pilot, "me/m")
        await pilot.press("enter")
        await when(pilot, lambda: names(screen) == ["me/m:Q4_0"] and not screen.looking)
        await pilot.press("enter")
        await when(pilot, lambda: "✓ ready" in shown(app) and len(names(screen)) == 2)
        table.move_cursor(row=0)
        await pilot.press("d")
        await when(pilot, lambda: isinstance(app.screen, ChooseScreen))
        assert app.screen.query_one(OptionList).option_count == 2
        await pilot.press("enter")  # with its files
        await when(pilot, lambda: not Registry(home).pulled())
        assert not list((tmp_path / "hf" / "hub").rglob("*.gguf"))
        assert (tmp_path / "ollama" / "blobs").is_dir()


async def test_folders_are_added_seen_to_change_hashed_and_forgotten(
    tmp_path: Path, home: Home, hub: HubServer, guide_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(models_screen, "DISK_SECONDS", 0.1)
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(guide_path, folder / "one.gguf")
    app, jobs = real_app(hub, tmp_path, home)
    async with app.run_test(size=SIZE) as pilot:
        screen = await open_models(pilot)
        jobs.library.add_folder(folder)  # in another window
        await when(pilot, lambda: "folder:one" in names(screen))
        shutil.copy(guide_path, folder / "two.gguf")
        await when(pilot, lambda: "folder:two" in names(screen))
        screen.query_one(ModelTable).move_cursor(row=names(screen).index("folder:two"))
        await pilot.press("h")
        digest = hashlib.sha256(guide_path.read_bytes()).hexdigest()[:8]
        await when(pilot, lambda: digest in shown(app))
        await pilot.press("f")
        await when(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await when(pilot, lambda: "touched" in shown(app))
        await when(pilot, lambda: "folder:one" not in names(screen))
        await pilot.press("a")
        await when(pilot, lambda: app.screen is not screen)
        await pilot.press("escape")
        await pilot.press("f5")
    assert (folder / "one.gguf").exists()
    assert (folder / "two.gguf").exists()
