"""Nothing that a model, a file or a person wrote acts on the terminal, also when it is split over several tokens."""

from __future__ import annotations

import re
import threading

import pytest

from localllm.errors import EngineError
from localllm.tui.app import LocalLLMApp
from localllm.tui.markdown import reply_parser
from localllm.tui.widgets.prompt import Prompt
from tests.tui.support import StreamEngine, opener, ready, say, scripted, shown, type_in, until

FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\ufeff]")
OSC_52 = "\x1b]52;c;SGVsbG8=\x07"

ATTACKS = [
    OSC_52,
    "\x9d52;c;SGVsbG8=\x9c",
    "\x1b[2J\x1b[H\x1b[?1049l",
    "\x1bP$q\x1b\\",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "a\u202eb\u2066c\u200bd",
    "`code \x1b[31m`",
    "```\x1b]0;title\x07\n\x1b[31m code\n```",
    "| \x1b[1m | b |\n|---|---|\n| \x1b[2J | \x07 |",
    "&#x202e;&#8294;&#x9d;&#x1b;",
    "<http://a.example/%1b%5d52;c;SGVsbG8=%07>",
    "[text](<http://a.example/\x1b]52;c;SGVsbG8=\x07>)",
    "![alt\x1b[2J](http://a.example/%1b)",
    "# \x1b]0;title\x07\n\n- \x1b[2J\n\n> \x9b2J",
]


def clean(text: str) -> bool:
    return FORBIDDEN.search(text) is None


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: ascii(a)[:24])
async def test_a_reply_reaches_the_screen_clean(attack: str):
    app = LocalLLMApp(opener(StreamEngine(pieces=("before\n\n", *attack, "\n\nafter"))))
    async with app.run_test(size=(80, 40)) as pilot:
        await ready(pilot)
        await say(pilot, "go")
        text = shown(app)
        assert "before" in text
        assert "after" in text
        assert clean(text)


async def test_every_split_of_a_clipboard_write_shows_its_characters():
    gate = threading.Event()
    pieces: list[str | threading.Event] = []
    for i in range(1, len(OSC_52)):
        pieces += [OSC_52[:i], OSC_52[i:], "\n\n"]
    app = LocalLLMApp(opener(StreamEngine(pieces=(*pieces, gate))))
    async with app.run_test(size=(80, 60)) as pilot:
        await ready(pilot)
        await type_in(pilot, "go")
        await until(pilot, lambda: shown(app).count("␛]52;c;SGVsbG8=␇") == len(OSC_52) - 1)
        assert clean(shown(app))
        gate.set()
        await ready(pilot)


async def test_names_messages_errors_and_commands_are_cleaned():
    engine = scripted(EngineError(f"bad {OSC_52}", f"hint {OSC_52}"))
    app = LocalLLMApp(opener(engine, f"ad{OSC_52}", name=f"Mo{OSC_52}del"), model=f"na{OSC_52}me")
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await ready(pilot)
        assert clean(shown(app))
        assert "Mo␛]52" in shown(app)
        await say(pilot, f"hello {OSC_52}")
        assert clean(shown(app))
        assert "bad ␛]52" in shown(app)
        screen.query_one(Prompt).text = ""
        await say(pilot, f"/system {OSC_52}")
        assert "system prompt: ␛]52" in shown(app)
        screen.query_one(Prompt).insert(OSC_52)
        await pilot.pause()
        assert clean(shown(app))


async def test_markup_of_textual_is_only_text():
    app = LocalLLMApp(opener(scripted("a [red]b[/red] [@click=app.quit]c[/]"), name="[bold]x"))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await say(pilot, "[blink]hi[/blink]")
        text = shown(app)
        for literal in ("[red]b[/red]", "[@click=app.quit]c[/]", "[bold]x", "[blink]hi[/blink]"):
            assert literal in text


@pytest.mark.parametrize(
    "markdown,shown_text",
    [
        ("<b>x</b> and <think>", "<b>x</b> and <think>"),
        ("<div>\nblock\n</div>", "<div>\nblock\n</div>"),
        ("[here](http://a.example/x)", "here (http://a.example/x)"),
        ("<http://a.example/%1b>", "http://a.example/%1b"),
        ("![pic](http://a.example/p.png)", "[image: pic] (http://a.example/p.png)"),
        ("one\ntwo", "one\ntwo"),
    ],
)
def test_nothing_a_model_wrote_is_hidden(markdown: str, shown_text: str):
    tokens = reply_parser().parse(markdown)
    children = [child for token in tokens for child in token.children or []]
    assert "".join("\n" if child.type == "hardbreak" else child.content for child in children) == shown_text
    assert not [child for child in children if child.type in ("link_open", "image", "html_inline")]
