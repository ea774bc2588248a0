"""Conversations in the app: branches, the list and its search, what is left out, models, comparing, files."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from localllm.store.chats.store import ChatStore
from localllm.tui.app import LocalLLMApp
from localllm.tui.screens.ask import AskScreen
from localllm.tui.screens.choose import ChooseScreen
from localllm.tui.screens.settings import SettingsScreen
from localllm.tui.widgets.banner import Banner
from localllm.tui.widgets.header import ChatHeader
from localllm.tui.widgets.message import AssistantMessage, UserMessage
from localllm.tui.widgets.prompt import Prompt
from localllm.tui.widgets.reply import Thought
from localllm.tui.widgets.sidebar import ChatList
from localllm.tui.widgets.transcript import Earlier, LeftOut, Transcript
from localllm.tui.widgets.welcome import Welcome
from localllm.types import Sampling
from tests.tui.support import StreamEngine, branch, chat_screen, opener, ready, say, scripted, shown, type_in, until

SIZE = (120, 40)


def words(app: LocalLLMApp) -> str:
    """The screen as one line, without the frames of dialogs."""
    return " ".join(shown(app).replace("│", " ").split())


def banner(app: LocalLLMApp) -> str:
    """What the banner says; nothing where it is not shown."""
    found = app.screen.query_one(Banner)
    return str(found.content) if found.display else ""


def contents(app: LocalLLMApp) -> list[str]:
    return [content for _, content, _ in branch(app)]


async def opened(pilot: Pilot[Any], screen: type) -> None:
    await until(pilot, lambda: isinstance(pilot.app.screen, screen))


# Branches


async def test_an_earlier_message_is_edited_and_both_branches_are_reachable():
    app = LocalLLMApp(opener(scripted("one", "two", "three")))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "first")
        await say(pilot, "second")
        await pilot.press("ctrl+up", "up", "up", "up", "e")
        prompt = chat_screen(app).query_one(Prompt)
        await until(pilot, lambda: prompt.text == "first")
        assert "Editing" in shown(app)
        await pilot.press(*" again", "enter")
        await ready(pilot)
        assert contents(app) == ["first again", "three"]
        assert "2/2" in shown(app)
        assert "second" not in [m.text for m in app.screen.query(UserMessage)]
        await pilot.press("ctrl+up", "up", "left")
        await until(pilot, lambda: contents(app) == ["first", "one", "second", "two"])
        await ready(pilot)
        assert "1/2" in shown(app)
        assert "two" in [m.text for m in app.screen.query(AssistantMessage)]
        await pilot.press("right")  # the keys are still for the message
        await until(pilot, lambda: contents(app) == ["first again", "three"])


async def test_esc_leaves_the_edited_message_as_it_was():
    app = LocalLLMApp(opener(scripted("one")))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "first")
        screen.action_edit_last()
        await pilot.press("escape")
        assert screen.query_one(Prompt).text == ""
        assert screen.editing is None
        assert contents(app) == ["first", "one"]


async def test_a_reply_is_written_again_beside_the_present_one():
    engine = scripted("one", "two")
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "q")
        await pilot.press("ctrl+r")
        await ready(pilot)
        assert contents(app) == ["q", "two"]
        assert [m.text for m in app.screen.query(AssistantMessage)] == ["two"]
        await pilot.click(".bottom .actions", offset=(13, 0))  # ◂
        await until(pilot, lambda: contents(app) == ["q", "one"])
    assert engine.prompts == ["<user>q<assistant>"] * 2


async def test_a_cut_reply_is_continued_in_its_place():
    engine = scripted("0123456789", "456789")
    app = LocalLLMApp(opener(engine, sampling=Sampling(max_tokens=4)))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "count")
        assert branch(app)[-1] == ("assistant", "0123", "cut")
        assert "continue" in shown(app)
        await say(pilot, "/continue")
        assert branch(app)[-1] == ("assistant", "01234567", "cut")
        assert len(screen.query(AssistantMessage)) == 1
        assert engine.prompts[-1] == "<user>count<assistant>0123"
        assert "8 tokens" in shown(app)


async def test_there_is_nothing_to_continue_after_a_whole_reply():
    app = LocalLLMApp(opener(scripted("whole")))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "q")
        await pilot.press("ctrl+g")
        await pilot.pause()
        assert "The last reply is complete." in shown(app)


# The list


async def test_conversations_are_listed_opened_and_kept_for_the_next_time(tmp_path: Path):
    path = tmp_path / "chats.sqlite3"
    app = LocalLLMApp(opener(scripted("one", "two")), store=ChatStore(path))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "about bridges")
        await pilot.press("ctrl+n")
        screen = await ready(pilot)
        assert screen.query(Welcome)
        await say(pilot, "about ships")
        await until(pilot, lambda: screen.query_one(ChatList).option_count == 2)
        assert "▸ about ships" in shown(app)
    app.store.close()
    again = LocalLLMApp(opener(scripted("three")), store=ChatStore(path))
    async with again.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        assert "New here?" not in shown(again)  # only the first time
        await pilot.press("f3", "tab")
        await until(pilot, lambda: screen.query_one(ChatList).option_count == 2)
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: bool(screen.query(UserMessage)))
        await ready(pilot)
        assert contents(again) == ["about bridges", "one"]
        await say(pilot, "go on")
        assert contents(again) == ["about bridges", "one", "go on", "three"]


async def test_the_search_finds_text_in_any_turn_and_opens_it_there(tmp_path: Path):
    app = LocalLLMApp(opener(scripted(*("reply " * 30 + str(i) for i in range(12)))))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        for number in range(6):
            await say(pilot, "the needle" if number == 0 else f"hay {number}")
        await pilot.press("ctrl+n")
        await ready(pilot)
        await pilot.press("f3", *"eedl")
        await until(pilot, lambda: "found" in shown(app) and screen.query_one(ChatList).option_count > 0)
        assert "the needle" in shown(app)
        await pilot.press("down", "enter")
        await until(pilot, lambda: len(contents(app)) == 12)
        await ready(pilot)
        await until(pilot, lambda: "the needle" in screen.query(UserMessage).first().text)


async def test_a_conversation_is_renamed_pinned_deleted_and_brought_back():
    app = LocalLLMApp(opener(scripted("one", "two")))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "older")
        await pilot.press("ctrl+n")
        await ready(pilot)
        await say(pilot, "newer")
        await pilot.press("f3", "tab", "down", "down", "r")
        await opened(pilot, AskScreen)
        app.screen.query_one(Input).value = "Renamed"
        await pilot.press("enter")
        await until(pilot, lambda: "Renamed" in shown(app))
        screen.query_one(ChatList).focus()
        await pilot.press("p")
        await until(pilot, lambda: "★ Renamed" in shown(app))
        assert [chat.title for chat in app.store.chats()] == ["Renamed", "newer"]
        screen.query_one(ChatList).highlighted = 0
        await pilot.press("d")
        await until(pilot, lambda: app.store.count() == 1)
        assert "Deleted: Renamed." in shown(app)
        await pilot.press("u")
        await until(pilot, lambda: app.store.count() == 2)
        await ready(pilot)
        assert contents(app) == ["older", "one"]  # and it is shown


async def test_deleting_what_is_shown_leaves_a_new_conversation():
    app = LocalLLMApp(opener(scripted("one")))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "q")
        await say(pilot, "/delete")
        assert screen.query(Welcome)
        assert "Deleted: q." in shown(app)
        await say(pilot, "/undo")
        assert contents(app) == ["q", "one"]


@pytest.mark.parametrize("name", ["talk.md", "talk.json"])
async def test_a_conversation_is_exported(name: str, tmp_path: Path):
    app = LocalLLMApp(opener(scripted("the reply")))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "q")
        await say(pilot, f"/export {tmp_path / name}")
        text = (tmp_path / name).read_text()
        assert "the reply" in text
        assert name.endswith(".md") or json.loads(text)["chats"][0]["turns"][1]["content"] == "the reply"
        await say(pilot, f"/export {tmp_path / name}")
        assert "exists already" in banner(app)


async def test_a_long_conversation_draws_its_end_and_more_on_the_way_up(tmp_path: Path):
    store = ChatStore()
    chat = store.create().id
    parent = None
    for number in range(120):
        parent = store.turns.add(chat, parent, ("user", "assistant")[number % 2], f"turn {number}")  # type: ignore[arg-type]
    app = LocalLLMApp(opener(scripted("new")), store=store)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await ready(pilot)
        screen._work("", lambda: screen.host.show(chat))
        await until(pilot, lambda: "turn 119" in shown(app))
        transcript = screen.query_one(Transcript)
        assert len(transcript.messages) <= 20
        for _ in range(40):
            await pilot.press("pageup")
            if "turn 0" in [m.text for m in transcript.messages]:
                break
        await until(pilot, lambda: "turn 0" in [m.text for m in transcript.messages])
        assert not screen.query(Earlier)
        assert len(transcript.messages) == 120
        await say(pilot, "go on")
        assert len(transcript.messages) < 60  # what is far above has gone again
        await until(pilot, lambda: "new" in [m.text for m in transcript.messages])
        assert screen.query(Earlier)


# The context


def crowded() -> tuple[Any, LocalLLMApp]:
    engine = scripted("an answer", n_ctx=200)
    return engine, LocalLLMApp(opener(engine))


async def test_a_full_context_asks_and_drops_only_what_was_agreed_to():
    engine, app = crowded()
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        for number in range(3):
            await say(pilot, f"question number {number}")
        await type_in(pilot, "x" * 80)
        await until(pilot, lambda: isinstance(app.screen, ChooseScreen))
        assert "The context is full" in shown(app)
        assert "Nothing has been left out yet." in words(app)
        await pilot.press("enter")
        await ready(pilot)
        assert "they stay here" in shown(app)
        assert app.screen.query(LeftOut)
        assert len(contents(app)) == 8  # all of it is still there
        assert "number 0" not in engine.prompts[-1]
        assert "x" * 80 in engine.prompts[-1]
        assert len(engine.prompts[-1]) <= 200
        await pilot.press("f5")
        await opened(pilot, ChooseScreen)
        assert "are left out" in words(app)
        await pilot.press("escape")
        await type_in(pilot, "y" * 120)
        await opened(pilot, ChooseScreen)
        assert "messages are left out already." in words(app)


async def test_older_turns_are_summarized_by_the_model_when_asked():
    engine = scripted("a", "b", "c", "THE SUMMARY", "the reply", n_ctx=420)
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        for number in range(3):
            await say(pilot, f"question {number} " + "word " * 10)
        await pilot.press("f5")
        await opened(pilot, ChooseScreen)
        await pilot.press("down", "enter")
        await ready(pilot)
        assert "Summarize the conversation above" in engine.prompts[-1]
        await say(pilot, "next")
        assert "THE SUMMARY" in engine.prompts[-1].split("<user>")[0]
        assert "question 0" not in engine.prompts[-1]
        await pilot.press("f5")
        await opened(pilot, ChooseScreen)
        assert "The summary: THE SUMMARY" in words(app)
        await pilot.press("down", "down", "enter")
        await ready(pilot)
        await say(pilot, "last")
        assert "question 0" in engine.prompts[-1]


# Settings


async def test_sampling_is_set_by_conversation_and_kept(tmp_path: Path):
    app = LocalLLMApp(opener(scripted("one"), sampling=Sampling(temperature=0.7)), store=ChatStore(tmp_path / "c"))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "q")
        await pilot.press("f4")
        await opened(pilot, SettingsScreen)
        app.screen.query_one("#p-temperature", Input).value = "9"
        app.screen.query_one("#system", TextArea).text = "Be brief."
        await pilot.press("ctrl+s")
        assert "Temperature must be from 0 to 5" in words(app)
        await pilot.click("#preset-precise")
        await until(pilot, lambda: "now precise" in shown(app))
        app.screen.query_one("#p-max_tokens", Input).value = "2"
        await pilot.press("ctrl+s")
        await ready(pilot)
        await say(pilot, "again")
        assert branch(app)[-1] == ("assistant", "on", "cut")
        settings = app.store.chats()[0].settings
        assert settings.sampling == Sampling(temperature=0.0, max_tokens=2)
        assert settings.system == "Be brief."
        assert screen.state is not None
        assert screen.state.sampling.max_tokens == 2


async def test_a_json_schema_is_checked_and_used():
    app = LocalLLMApp(opener(scripted("{}")))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await pilot.press("f4")
        await opened(pilot, SettingsScreen)
        schema = app.screen.query_one("#schema", TextArea)
        schema.text = '{"type": '
        await pilot.press("ctrl+s")
        assert "The JSON schema is not JSON" in words(app)
        schema.text = '{"type": "object"}'
        await until(pilot, lambda: "The JSON schema is not JSON" not in words(app))
        await pilot.press("ctrl+s")
        await ready(pilot)
        assert "JSON schema · context" in shown(app)
        await say(pilot, "q")
        assert screen.host._chat is not None
        assert screen.host._chat.session.sampling.json_schema == '{"type": "object"}'


async def test_settings_that_nobody_changed_stay_those_of_the_model():
    app = LocalLLMApp(opener(scripted("one"), sampling=Sampling(temperature=0.7)))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await pilot.press("f4")
        await opened(pilot, SettingsScreen)
        await pilot.press("ctrl+s")
        await ready(pilot)
        assert "settings changed" not in shown(app)
        await pilot.press("f4")
        await opened(pilot, SettingsScreen)
        app.screen.query_one("#system", TextArea).text = "Be brief."
        await pilot.press("ctrl+s")
        await ready(pilot)
        assert "settings changed" in shown(app)
        assert screen.state is not None
        assert (screen.state.settings.sampling, screen.state.sampling.temperature) == (None, 0.7)


async def test_system_prompts_are_kept_in_a_library():
    app = LocalLLMApp(opener(scripted("one")))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("f4")
        await opened(pilot, SettingsScreen)
        app.screen.query_one("#system", TextArea).text = "Answer in French."
        app.screen.query_one("#keep").press()  # type: ignore[attr-defined]
        await opened(pilot, AskScreen)
        await pilot.press(*"french", "enter")
        await opened(pilot, SettingsScreen)
        assert app.store.prompts() == {"french": "Answer in French."}
        app.screen.query_one("#system", TextArea).text = ""
        app.screen.query_one("#library").value = "french"  # type: ignore[attr-defined]
        await pilot.pause()
        assert app.screen.query_one("#system", TextArea).text == "Answer in French."


# Models


async def test_another_model_goes_on_with_the_conversation():
    other = scripted("from the other")
    engine = scripted("from the first")
    app = LocalLLMApp(opener(engine, "tickets", beside=other))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "q")
        await say(pilot, "/model other")
        assert screen.query_one(ChatHeader).model == "other"
        assert engine.closed
        await say(pilot, "and now?")
        assert other.prompts == ["<user>q<assistant>from the first<user>and now?<assistant>"]
        assert [m.author for m in screen.query(AssistantMessage)] == ["fake", "other"]


async def test_an_unknown_model_leaves_the_present_one():
    app = LocalLLMApp(opener(scripted("one")))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "/model nix")
        assert "There is no model named 'nix'." in shown(app)
        assert screen.query_one(ChatHeader).model == "fake"


async def test_base_and_adapter_answer_side_by_side_at_the_same_time():
    gate = threading.Event()
    base = StreamEngine(pieces=("base be", gate, "gun"))
    tuned = StreamEngine(pieces=("tuned be", gate, "gun"))
    app = LocalLLMApp(opener(base, "tickets", beside=tuned))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "/compare tickets")
        assert "comparing base and tickets" in shown(app)
        await type_in(pilot, "q")
        await until(pilot, lambda: "base be" in shown(app) and "tuned be" in shown(app))  # both while both stream
        gate.set()
        await ready(pilot)
        assert [m.text for m in screen.query(AssistantMessage)] == ["base begun", "tuned begun"]
        assert [path.stem for path, _ in tuned.adapters] == ["tickets"]
        assert contents(app) == ["q", "tuned begun"]
        turns = app.store.turns.branch(1)
        assert len(turns[-1].siblings) == 2  # the base's reply is the other branch
        await pilot.press("f8")
        await ready(pilot)
        assert tuned.closed
        assert not base.closed


# Files in messages


async def test_a_file_is_named_counted_and_sent(tmp_path: Path):
    path = tmp_path / "note.md"
    path.write_text("the text of the note")
    engine = scripted("read")
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        prompt = screen.query_one(Prompt)
        prompt.insert(f"What is in @{str(path)[:-4]}")
        await pilot.press("tab")
        assert prompt.text == f"What is in @{path} "
        await until(pilot, lambda: "20 tokens" in str(prompt.border_subtitle))
        assert str(path) in str(prompt.border_subtitle)
        await pilot.press("enter")
        await ready(pilot)
    assert engine.prompts[0].startswith(f"<user>What is in @{path}\n\nnote.md:\n```\nthe text of the note\n```")


async def test_a_file_that_holds_no_text_is_refused_with_the_message_kept(tmp_path: Path):
    path = tmp_path / "empty.txt"
    path.write_text("  ")
    app = LocalLLMApp(opener(scripted("read")))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, f"see @{path}")
        assert "holds no text" in banner(app)
        assert screen.query_one(Prompt).text == f"see @{path}"


async def test_a_long_message_is_folded_and_unfolds():
    app = LocalLLMApp(opener(scripted("ok")))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "\n".join(f"line {i}" for i in range(60)))
        assert "more lines" in shown(app)
        assert "line 59" not in shown(app)
        await pilot.press("ctrl+up", "up", "space")
        await until(pilot, lambda: "more lines" not in shown(app))


# Thoughts, code, links


@pytest.mark.parametrize("reply", ["<think>\nsecret plan\n</think>\n\nThe answer.", "secret plan</think>The answer."])
async def test_a_thought_is_folded_and_not_sent_again(reply: str):
    engine = scripted(reply, "next")
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "q")
        assert "The answer." in shown(app)
        assert "secret plan" not in shown(app)
        assert "thought 2 words" in shown(app)
        await pilot.press("ctrl+up", "space")
        await until(pilot, lambda: "secret plan" in shown(app))
        screen.query_one(Prompt).focus()
        await say(pilot, "again")
    assert engine.prompts[-1] == "<user>q<assistant>The answer.<user>again<assistant>"


async def test_a_thought_that_goes_on_says_so():
    gate = threading.Event()
    app = LocalLLMApp(opener(StreamEngine(pieces=("<thi", "nk>one two", gate, "</think>done"))))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await type_in(pilot, "q")
        await until(pilot, lambda: "thinking … 2 words" in shown(app))
        gate.set()
        await ready(pilot)
        assert len(app.screen.query(Thought)) == 1
        assert "done" in shown(app)


async def test_code_blocks_are_copied_one_by_one():
    app = LocalLLMApp(opener(scripted("```python\none = 1\n```\n\ntext\n\n```sh\nls\n```\n")))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "q")
        for language, code in (("python", "one = 1"), ("sh", "ls")):
            bar = next((y, x) for y, x in enumerate(shown(app).splitlines()) if f" {language} " in x and "copy" in x)
            await pilot.click(offset=(bar[1].index("copy"), bar[0]))
            await until(pilot, lambda code=code: app.clipboard == code)  # type: ignore[misc]
        await pilot.press("ctrl+up", "x")
        await opened(pilot, ChooseScreen)
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.clipboard == "ls")


async def test_the_last_reply_is_copied_as_markdown():
    app = LocalLLMApp(opener(scripted("The **answer**.")))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "q")
        await pilot.press("ctrl+up", "c")
        await until(pilot, lambda: app.clipboard == "The **answer**.")


async def test_an_address_is_shown_whole_before_it_is_opened(monkeypatch: pytest.MonkeyPatch):
    opened_urls: list[str] = []
    monkeypatch.setattr(LocalLLMApp, "open_url", lambda self, url, new_tab=True: opened_urls.append(url))
    app = LocalLLMApp(opener(scripted("See [the bank](http://evil.example/x).")))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "q")
        await pilot.press("ctrl+up", "o")
        await opened(pilot, ChooseScreen)
        await pilot.press("enter")
        await until(pilot, lambda: "Open it in the browser" in shown(app))
        assert "http://evil.example/x" in shown(app)
        assert opened_urls == []
        await pilot.press("down", "enter")
        await until(pilot, lambda: opened_urls == ["http://evil.example/x"])


# When the disk fails


async def test_a_reply_that_cannot_be_saved_is_shown_with_the_reason(tmp_path: Path):
    app = LocalLLMApp(opener(scripted("one", "two")), store=ChatStore(tmp_path / "c.sqlite3"))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "q")
        app.store.database._connection.execute("PRAGMA query_only = ON")
        await say(pilot, "next")
        assert "cannot be read or saved" in banner(app)
        assert app.screen.query_one(Prompt).text == "next"
