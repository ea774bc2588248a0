"""Draws assets/chat.svg: the real app, on the built-in model, reading a passage and answering about it.

Run from the repository root: python -m scripts.screenshot [--out FILE]. Fails where the built-in model is not built.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from localllm.errors import LocalLLMError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.chat import open_chat
from localllm.tui.app import LocalLLMApp
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.widgets.prompt import Prompt

SIZE = (100, 30)
MODEL = "guide"
TURNS = (
    "Who are you?",
    "Summarize the following text in one sentence.\n\n"
    "The lighthouse on Cape Mora was built in 1874 by Anna Lind. It is 41 metres tall. Its lamp still guides ships "
    "into the harbour at night.",
)


async def draw(out: Path, home: Path) -> None:
    """Drive the app through TURNS and save what it shows."""
    app = LocalLLMApp(lambda: open_chat(Registry(Home(home)), MODEL), model=MODEL)
    async with app.run_test(size=SIZE) as pilot:
        screen = app.screen
        assert isinstance(screen, ChatScreen)
        prompt = screen.query_one(Prompt)
        prompt.cursor_blink = False
        for turn in ("", *TURNS):
            if turn:
                prompt.insert(turn)
                await pilot.press("enter")
            await pilot.pause()
            while (screen.busy or screen.state is None) and app.open_error is None:
                await pilot.pause(0.05)
        if app.open_error is None:
            out.write_text(app.export_screenshot(title="localllm"), encoding="utf-8")
    app.host.close()
    if app.open_error is not None:
        raise app.open_error


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "assets" / "chat.svg")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as home:
            asyncio.run(draw(args.out, Path(home)))
    except LocalLLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
