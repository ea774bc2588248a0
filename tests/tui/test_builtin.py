"""The app on the built-in model."""

from __future__ import annotations

from pathlib import Path

from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tui.app import LocalLLMApp
from localllm.tui.widgets.message import AssistantMessage
from localllm.tui.widgets.status import StatusBar
from tests.tui.support import ready, say, shown


async def test_two_turns_on_the_built_in_model(tmp_path: Path):
    from localllm.tasks.chat import open_chat

    app = LocalLLMApp(lambda: open_chat(Registry(Home(tmp_path)), "guide"))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await ready(pilot)
        assert "Things to try" in shown(app)
        await say(pilot, "Hello!")
        used = screen.query_one(StatusBar).context[0]
        await say(pilot, "Who are you?")
        replies = screen.query(AssistantMessage)
        assert len(replies) == 2
        assert all(reply.text.strip() for reply in replies)
        assert screen.query_one(StatusBar).context[0] > used > 0
    app.host.close()
