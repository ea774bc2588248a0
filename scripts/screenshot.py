"""Draws the pictures of README: the real app, on the built-in model, its words as they came.

    chat.svg            it reads a passage and answers about it
    conversations.svg   a search over all conversations, and a reply that was written twice
    settings.svg        the settings of a conversation

Run from the repository root: python -m scripts.screenshot [--out FOLDER]. Fails where the built-in model is not built.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from localllm.errors import LocalLLMError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.chat import Chat, open_chat
from localllm.tasks.conversations import open_store
from localllm.tui.app import LocalLLMApp
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.widgets.prompt import Prompt

SIZE = (120, 32)
MODEL = "guide"
PASSAGE = (
    "Summarize the following text in one sentence.\n\n"
    "The lighthouse on Cape Mora was built in 1874 by Anna Lind. It is 41 metres tall. Its lamp still guides ships "
    "into the harbour at night."
)
EARLIER = (
    "The old bridge over the Lenne was closed in spring.\n\nWhat was closed?",
    "The reading room is open until ten.\n\nUntil when is the reading room open?",
    "How do I make an adapter?",
)


class Sitter:
    """The app, kept still for a picture."""

    def __init__(self, pilot: Pilot[None], app: LocalLLMApp) -> None:
        self._pilot, self._app = pilot, app

    @property
    def screen(self) -> ChatScreen:
        screen = self._app.screen_stack[0]
        assert isinstance(screen, ChatScreen)
        return screen

    async def ready(self) -> None:
        await self._pilot.pause()
        while (self.screen.busy or self.screen.state is None) and self._app.open_error is None:
            await self._pilot.pause(0.05)
        await self._pilot.pause(0.3)

    async def say(self, text: str) -> None:
        self.screen.query_one(Prompt).insert(text)
        await self.press("enter")

    async def press(self, *keys: str) -> None:
        await self._pilot.press(*keys)
        await self.ready()

    def take(self, path: Path) -> None:
        path.write_text(self._app.export_screenshot(title="localllm"), encoding="utf-8")


async def draw(out: Path, home: Home) -> None:
    """Drive the app, and save what it shows on the way."""
    app = LocalLLMApp(_opening(home), store=open_store(home), model=MODEL)
    async with app.run_test(size=SIZE) as pilot:
        sitter = Sitter(pilot, app)
        await sitter.ready()
        if app.open_error is None:
            sitter.screen.query_one(Prompt).cursor_blink = False
            for text in EARLIER:
                await sitter.say(text)
                await sitter.press("ctrl+n")
            await sitter.say("Who are you?")
            await sitter.say(PASSAGE)
            sitter.take(out / "chat.svg")
            await sitter.press("f4")
            sitter.take(out / "settings.svg")
            await sitter.press("escape")
            await sitter.press("ctrl+r")
            await sitter.press("f3", *"open", "down")
            sitter.take(out / "conversations.svg")
    app.host.close()
    if app.open_error is not None:
        raise app.open_error


def _opening(home: Home) -> Callable[[], Chat]:
    return lambda: open_chat(Registry(home), MODEL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "assets", help="a folder")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as home:
            asyncio.run(draw(args.out, Home(Path(home))))
    except LocalLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
