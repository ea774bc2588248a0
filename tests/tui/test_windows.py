"""Two windows on the same conversation: each goes on from what it shows, and nothing of the other is lost."""

from __future__ import annotations

from pathlib import Path

from localllm.store.chats.store import ChatStore
from localllm.tui.app import LocalLLMApp
from localllm.tui.widgets.message import AssistantMessage, UserMessage
from tests.tui.support import opener, ready, say, scripted, shown

SIZE = (100, 40)


async def test_a_message_goes_below_what_its_own_window_shows(tmp_path: Path):
    store, elsewhere = (ChatStore(tmp_path / "chats.sqlite3") for _ in range(2))
    engine = scripted("one", "mine")
    app = LocalLLMApp(opener(engine), store=store)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "first")
        chat = elsewhere.chats()[0].id
        theirs = elsewhere.turns.add(chat, elsewhere.turns.branch(chat)[-1].id, "user", "from the other window")
        await say(pilot, "second")
        assert engine.prompts[-1] == "<user>first<assistant>one<user>second<assistant>"
        assert [m.text for m in app.screen.query(UserMessage)] == ["first", "second"]
        assert "2/2" in shown(app)
        assert elsewhere.turns.get(theirs).content == "from the other window"
    elsewhere.close()


async def test_a_reply_is_written_again_for_the_question_above_it(tmp_path: Path):
    store, elsewhere = (ChatStore(tmp_path / "chats.sqlite3") for _ in range(2))
    engine = scripted("one", "two")
    app = LocalLLMApp(opener(engine), store=store)
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "first")
        elsewhere.turns.add(elsewhere.chats()[0].id, None, "user", "first, but otherwise")
        await pilot.press("ctrl+r")
        await ready(pilot)
        assert engine.prompts == ["<user>first<assistant>"] * 2
        assert [m.text for m in app.screen.query(AssistantMessage)] == ["two"]
    elsewhere.close()
