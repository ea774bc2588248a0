"""Every action of the chat screen, driven by keys on a scripted engine."""

from __future__ import annotations

import re
import threading

import pytest

from localllm.engine.fake import FakeEngine
from localllm.errors import ModelNotFoundError, TemplateError
from localllm.tui.app import LocalLLMApp, run_chat
from localllm.tui.screens.help import HelpScreen, help_text
from localllm.tui.widgets.banner import Banner
from localllm.tui.widgets.header import ChatHeader
from localllm.tui.widgets.message import AssistantMessage, Note, UserMessage
from localllm.tui.widgets.prompt import Prompt
from localllm.tui.widgets.status import StatusBar, context_meter
from localllm.tui.widgets.welcome import Welcome
from localllm.types import Sampling
from tests.tui.support import (
    StreamEngine,
    branch,
    broken,
    chat_screen,
    opener,
    ready,
    say,
    scripted,
    shown,
    type_in,
    until,
)

SIZE = (80, 24)


async def test_a_message_is_answered_and_becomes_part_of_the_conversation():
    engine = scripted("The **answer**.")
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert "Things to try" in shown(app)
        await pilot.press(*"hi there", "enter")
        screen = await ready(pilot)
        assert screen.query_one(UserMessage).text == "hi there"
        assert screen.query_one(AssistantMessage).text == "The **answer**."
        assert "The answer." in shown(app)
        assert "15 tokens · 200.0 tokens/s" in shown(app)
        assert not screen.query(Welcome)
        assert screen.query_one(Prompt).text == ""
    assert engine.prompts == ["<user>hi there<assistant>"]


async def test_what_is_typed_before_the_model_is_open_is_not_lost():
    gate = threading.Event()
    open_chat = opener(scripted())
    app = LocalLLMApp(lambda: (gate.wait(5), open_chat())[1], model="guide")
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        assert "Opening guide" in shown(app)
        await type_in(pilot, "early")
        await pilot.pause()
        assert "still being opened" in shown(app)
        assert chat_screen(app).query_one(Prompt).text == "early"
        gate.set()
        await ready(pilot)
        await pilot.press("enter")
        screen = await ready(pilot)
        assert len(screen.query(AssistantMessage)) == 1


async def test_text_appears_while_it_streams_with_the_context_it_takes():
    gate = threading.Event()
    app = LocalLLMApp(opener(StreamEngine(pieces=("first ", "part", gate, " second"))))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await type_in(pilot, "go")
        screen = chat_screen(app)
        await until(pilot, lambda: "first part" in shown(app))
        assert screen.query_one(StatusBar).activity == "writing …"
        assert screen.query_one(StatusBar).context[0] > 0
        assert "second" not in shown(app)
        gate.set()
        await ready(pilot)
        assert "first part second" in shown(app)
        assert screen.query_one(StatusBar).activity == "ready"


async def test_esc_stops_the_reply_and_keeps_the_part():
    engine = StreamEngine(pieces=("kept part", threading.Event()))
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await type_in(pilot, "go")
        await until(pilot, lambda: "kept part" in shown(app))
        await pilot.press("escape")
        await ready(pilot)
        assert "kept part" in shown(app)
        assert "stopped" in shown(app)
        assert branch(app) == [("user", "go", "complete"), ("assistant", "kept part", "stopped")]


async def test_ctrl_c_stops_a_reply_then_empties_the_input_then_says_how_to_quit():
    app = LocalLLMApp(opener(StreamEngine(pieces=("part", threading.Event()))))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await type_in(pilot, "go")
        await until(pilot, lambda: "part" in shown(app))
        await pilot.press("ctrl+c")
        await ready(pilot)
        assert "stopped" in shown(app)
        await pilot.press(*"draft", "ctrl+c")
        assert screen.query_one(Prompt).text == ""
        await pilot.press("ctrl+c")
        await pilot.pause()
        assert "Ctrl+Q quits" in shown(app)


async def test_a_second_message_waits_in_the_input_while_a_reply_streams():
    gate = threading.Event()
    app = LocalLLMApp(opener(StreamEngine(pieces=("part", gate))))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await type_in(pilot, "go")
        await until(pilot, lambda: "part" in shown(app))
        await type_in(pilot, "next")
        await pilot.pause()
        assert "A reply is being written." in shown(app)
        assert chat_screen(app).query_one(Prompt).text == "next"
        gate.set()
        await ready(pilot)


async def test_an_adapter_is_switched_in_the_middle_of_a_conversation():
    engine = scripted("one", "two", "three")
    app = LocalLLMApp(opener(engine, "tickets"))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        assert "no adapter" in shown(app)
        await say(pilot, "a")
        await say(pilot, "/adapter tickets")
        assert [path.stem for path, _ in engine.adapters] == ["tickets"]
        assert screen.query_one(ChatHeader).adapter == "tickets"
        assert "adapter: tickets" in shown(app)
        await say(pilot, "b")
        await say(pilot, "/adapter off")
        assert engine.adapters == []
        await say(pilot, "c")
        authors = [reply.author for reply in screen.query(AssistantMessage)]
        assert authors == ["fake", "fake + adapter tickets", "fake"]
        assert len(screen.query(Note)) == 2
    assert engine.prompts[-1] == "<user>a<assistant>one<user>b<assistant>two<user>c<assistant>"


async def test_ctrl_t_toggles_the_only_adapter():
    engine = scripted()
    app = LocalLLMApp(opener(engine, "tickets"))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        for expected in ("tickets", None, "tickets"):
            await pilot.press("ctrl+t")
            await ready(pilot)
            assert screen.query_one(ChatHeader).adapter == expected


async def test_ctrl_t_asks_which_of_several_adapters():
    app = LocalLLMApp(opener(scripted(), "tickets", "poems"))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+t")
        await pilot.pause()
        assert "Which adapter?" in shown(app)
        await pilot.press("down", "enter")
        screen = await ready(pilot)
        assert screen.query_one(ChatHeader).adapter == "poems"


async def test_an_unknown_adapter_leaves_the_one_in_use():
    engine = scripted()
    app = LocalLLMApp(opener(engine, "tickets"))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "/adapter tickets")
        await say(pilot, "/adapter nix")
        assert "There is no adapter named 'nix'." in shown(app)
        assert screen.query_one(ChatHeader).adapter == "tickets"
        assert len(engine.adapters) == 1
        await pilot.press("escape")
        assert not screen.query_one(Banner).display


async def test_the_system_prompt_is_set_shown_and_removed():
    engine = scripted()
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "/system Answer in French.")
        assert "system prompt: Answer in French." in shown(app)
        await say(pilot, "a")
        await say(pilot, "/system")
        assert "The system prompt is: Answer in French." in shown(app)
        await say(pilot, "/system off")
        await say(pilot, "b")
    assert engine.prompts[0].startswith("<system>Answer in French.<user>a")
    assert engine.prompts[1].startswith("<user>a")


@pytest.mark.parametrize("how", ["/clear", "ctrl+l"])
async def test_clear_forgets_the_conversation(how: str):
    engine = scripted()
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "a")
        await (say(pilot, how) if how.startswith("/") else pilot.press(how))
        await until(pilot, lambda: not screen.busy and bool(screen.query(Welcome)))
        assert "Things to try" in shown(app)
        assert not screen.query(UserMessage)
        assert screen.query_one(StatusBar).context[0] == 0
        await say(pilot, "b")
    assert engine.prompts[-1] == "<user>b<assistant>"


@pytest.mark.parametrize("how", ["/help", "f1"])
async def test_help_opens_and_closes(how: str):
    app = LocalLLMApp(opener(scripted()))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await (type_in(pilot, how) if how.startswith("/") else pilot.press(how))
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert "Ctrl+Q" in shown(app)
        assert "/adapter NAME | off" in help_text(app.keys).plain
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is chat_screen(app))


async def test_an_unknown_command_is_named_and_stays_in_the_input():
    engine = scripted()
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "/adaptor x")
        assert "There is no command /adaptor." in shown(app)
        assert "Did you mean /adapter?" in shown(app)
        assert screen.query_one(Prompt).text == "/adaptor x"
    assert engine.prompts == []


async def test_a_message_may_start_with_a_path():
    engine = scripted()
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "/usr/bin/env is what?")
    assert engine.prompts == ["<user>/usr/bin/env is what?<assistant>"]


async def test_a_message_that_does_not_fit_comes_back_to_the_input():
    engine = scripted("ok", n_ctx=100)
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "short")
        await type_in(pilot, "x" * 100)
        await until(pilot, lambda: "The context is full" in shown(app))
        assert "and the context holds 100:" in " ".join(re.sub("[│▌]", " ", shown(app)).split())
        await pilot.press("escape")
        await ready(pilot)
        assert screen.query_one(Prompt).text == "x" * 100
        assert len(screen.query(UserMessage)) == 1
        screen.query_one(Prompt).clear()
        await say(pilot, "then")
    assert engine.prompts[-1] == "<user>short<assistant>ok<user>then<assistant>"


async def test_an_error_in_mid_stream_shows_the_part_and_keeps_the_conversation():
    engine = StreamEngine(pieces=("half a rep", broken()))
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "a")
        text = shown(app)
        assert "half a rep" in text
        assert "cut off" in text
        assert "The device was lost." in text
        assert branch(app) == [("user", "a", "complete"), ("assistant", "half a rep", "cut")]
        engine.pieces = ("ly and more",)
        await pilot.press("ctrl+g")
        await ready(pilot)
        assert "half a reply and more" in shown(app)
        assert not screen.query_one(Banner).display
        assert branch(app) == [("user", "a", "complete"), ("assistant", "half a reply and more", "complete")]
    assert engine.prompts == ["<user>a<assistant>", "<user>a<assistant>half a rep"]


async def test_a_message_of_which_nothing_came_goes_back_to_the_input():
    engine = StreamEngine(pieces=(broken(),))
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "a")
        assert "The device was lost." in shown(app)
        assert screen.query_one(Prompt).text == "a"
        assert not screen.query(UserMessage)
        assert app.store.count() == 0
        engine.pieces = ("whole",)
        await pilot.press("enter")
        await ready(pilot)
        assert "whole" in shown(app)


async def test_a_bug_in_the_engine_does_not_end_the_app():
    app = LocalLLMApp(opener(StreamEngine(pieces=("x", ZeroDivisionError("oops")))))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "a")
        assert "ZeroDivisionError: oops" in shown(app)


async def test_a_model_without_a_template_says_so(monkeypatch: pytest.MonkeyPatch):
    def no_template(self: FakeEngine, messages: object, *, add_generation_prompt: bool = True) -> list[int]:
        raise TemplateError("fake has no chat template.", "Start again with --template NAME.")

    monkeypatch.setattr(FakeEngine, "encode_chat", no_template)
    app = LocalLLMApp(opener(scripted()))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "a")
        assert "fake has no chat template." in shown(app)


async def test_a_cut_reply_says_why():
    app = LocalLLMApp(opener(scripted("a long reply"), sampling=Sampling(max_tokens=4)))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await say(pilot, "a")
        assert "cut: the most tokens allowed were written" in shown(app)


async def test_up_and_down_go_through_what_was_sent():
    app = LocalLLMApp(opener(scripted()))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        await say(pilot, "one")
        await say(pilot, "two")
        prompt = screen.query_one(Prompt)
        await pilot.press(*"dra")
        for key, expected in [("up", "two"), ("up", "one"), ("up", "one"), ("down", "two"), ("down", "dra")]:
            await pilot.press(key)
            assert prompt.text == expected


async def test_a_message_may_have_several_lines():
    engine = scripted()
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        screen = await ready(pilot)
        height = screen.query_one(Prompt).size.height
        await pilot.press("a", "ctrl+j", "b", "shift+enter", "c")
        await pilot.pause()
        assert screen.query_one(Prompt).size.height == height + 2
        await pilot.press("enter")
        await ready(pilot)
    assert engine.prompts == ["<user>a\nb\nc<assistant>"]


async def test_page_up_scrolls_and_new_text_does_not_pull_back():
    gate = threading.Event()
    pieces = (*(f"line {i}\n\n" for i in range(60)), gate, "the end")
    app = LocalLLMApp(opener(StreamEngine(pieces=pieces)))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await type_in(pilot, "go")
        await until(pilot, lambda: "line 59" in shown(app))
        await pilot.press("pageup")
        await pilot.pause()
        assert "line 59" not in shown(app)
        gate.set()
        await ready(pilot)
        assert "the end" not in shown(app)
        for _ in range(3):
            await pilot.press("pagedown")
        await pilot.pause()
        assert "the end" in shown(app)


async def test_the_theme_can_be_switched():
    app = LocalLLMApp(opener(scripted()))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        assert app.current_theme.dark
        await pilot.press("f2")
        assert not app.current_theme.dark


@pytest.mark.parametrize("how", ["ctrl+q", "/quit"])
async def test_quitting_while_a_reply_streams_is_prompt(how: str):
    engine = StreamEngine(pieces=("part", threading.Event()))
    app = LocalLLMApp(opener(engine))
    async with app.run_test(size=SIZE) as pilot:
        await ready(pilot)
        await type_in(pilot, "go")
        await until(pilot, lambda: "part" in shown(app))
        await (type_in(pilot, how) if how.startswith("/") else pilot.press(how))
    closer = threading.Thread(target=app.host.close)
    closer.start()
    closer.join(1.0)
    assert not closer.is_alive()
    assert engine.closed


async def test_a_model_that_cannot_be_opened_ends_the_app():
    def open_chat() -> object:
        raise ModelNotFoundError("There is no model named 'x'.")

    app = LocalLLMApp(open_chat)  # type: ignore[arg-type]
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.open_error is not None)
    assert isinstance(app.open_error, ModelNotFoundError)
    assert app.return_code == 1


def test_run_chat_raises_what_opening_raised(monkeypatch: pytest.MonkeyPatch):
    def run(self: LocalLLMApp) -> None:
        self.open_error = ModelNotFoundError("gone")

    monkeypatch.setattr(LocalLLMApp, "run", run)
    with pytest.raises(ModelNotFoundError):
        run_chat(opener(scripted()))


@pytest.mark.parametrize(
    "used,total,expected",
    [
        (0, 0, ""),
        (300, 1000, "context ███░░░░░░░ 300/1000 30%"),
        (800, 1000, "nearly full context ████████░░ 800/1000 80%"),
        (1000, 1000, "full context ██████████ 1000/1000 100%"),
    ],
)
def test_the_meter_says_in_words_when_it_is_nearly_full(used: int, total: int, expected: str):
    assert context_meter(used, total) == expected
