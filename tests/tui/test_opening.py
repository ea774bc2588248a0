"""How a long conversation comes to the screen: its end first."""

from __future__ import annotations

from textual.pilot import Pilot

from localllm.store.chats.store import ChatStore
from localllm.tui.app import LocalLLMApp
from localllm.tui.screens.chat import ChatScreen
from localllm.tui.widgets.status import StatusBar
from localllm.tui.widgets.transcript import FIRST_TURNS, Earlier, Transcript
from tests.tui.support import opener, ready, scripted, shown, until


def filled(words: int) -> tuple[ChatStore, int]:
    """A conversation of 100 turns of so many words each."""
    store = ChatStore()
    chat, parent = store.create().id, None
    for number in range(100):
        text = f"turn-{number} " + "word " * words
        parent = store.turns.add(chat, parent, ("user", "assistant")[number % 2], text)  # type: ignore[arg-type]
    return store, chat


async def opened(pilot: Pilot[None], chat: int) -> ChatScreen:
    screen = await ready(pilot)
    screen._work("", lambda: screen.host.show(chat))
    await until(pilot, lambda: "turn-99" in shown(pilot.app))
    return screen


async def test_the_view_is_filled_first_and_the_rest_is_drawn_behind_it():
    store, chat = filled(words=40)
    app = LocalLLMApp(opener(scripted("ok")), store=store)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, chat)
        transcript = screen.query_one(Transcript)
        await until(pilot, lambda: len(transcript.messages) == FIRST_TURNS)
        assert screen.state is not None
        await transcript.show(screen.state, store.turns.branch(chat))
        await pilot.pause()
        first = shown(app)
        assert len(transcript.messages) < FIRST_TURNS
        assert transcript.virtual_size.height > transcript.size.height  # nothing is missing in the view
        await transcript.complete()
        await pilot.pause()
        assert len(transcript.messages) == FIRST_TURNS
        assert len(screen.query(Earlier)) == 1
        assert _text(shown(app)) == _text(first)


def _text(picture: str) -> list[str]:
    """Without the scroll bar."""
    return [line[:-3].rstrip() for line in picture.splitlines()]


async def test_a_long_conversation_is_counted_after_it_is_shown():
    store, chat = filled(words=120)
    engine = scripted("ok", n_ctx=1 << 20)
    app = LocalLLMApp(opener(engine), store=store)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await opened(pilot, chat)
        status = screen.query_one(StatusBar)
        await until(pilot, lambda: status.context[0] > 0)
        assert screen.state is not None
        assert status.context == (screen.state.context_used, 1 << 20)
        screen._work("", lambda: screen.host.set_system(None))
        await ready(pilot)
        counted = status.context
        screen._work("", lambda: screen.host.show(chat))
        await until(pilot, lambda: not screen.busy and status.context == counted)
