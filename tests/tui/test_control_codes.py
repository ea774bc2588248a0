"""All 65 control codes from every place that text comes from, with a terminal emulator as the judge.

Each is tried as what begins an escape sequence and what ends one. Nothing may act on the terminal, and everything
must be seen.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from textual.widgets import Input

from localllm.paths import Home
from localllm.sanitize import sanitize
from localllm.store.chats.store import ChatStore
from localllm.tui.app import LocalLLMApp
from localllm.tui.screens.choose import ChooseScreen
from localllm.weights.gguf import read_header
from localllm.weights.writer import copy_gguf
from tests.tui.hostile import CODES, attack, hostile_chat
from tests.tui.support import ready, shown, until
from tests.tui.terminal import ROOT, Terminal

OWN = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][0-9]+;[^\x07\x1b]*(?:\x07|\x1b\\\\)|[=>78M]|P[^\x1b]*\x1b\\\\)")
"""Escape sequences that the app itself may send."""
LAYOUT = {0x09, 0x0A, 0x0D}
"""Codes that are white space: they are laid out, and act on nothing."""
SECONDS = 90.0
"""However slow the machine is."""
SHOWN = [code for code in CODES if code not in LAYOUT]


def spawn(program: str, *arguments: str, columns: int, lines: int = 80, cwd: Path = ROOT) -> Terminal:
    return Terminal([sys.executable, str(ROOT / "tests" / "tui" / program), *arguments], columns, lines, cwd=cwd)


def assert_nothing_acted(terminal: Terminal) -> None:
    assert "own" not in terminal.title
    assert not re.search("[\x1b\x9b]\\[?77m", terminal.raw)
    assert not re.search("[\x1b\x9d]\\]?0;own", terminal.raw)
    left = OWN.sub("", terminal.raw)
    assert {hex(ord(c)) for c in re.findall("[\x00-\x1f\x7f-\x9f]", left)} <= {"0xa", "0xd"}


def assert_all_seen(text: str, times: int = 1) -> None:
    flat = " ".join(text.split())
    missing = [hex(code) for code in SHOWN if flat.count(sanitize(attack(code))) < times]
    assert not missing, f"not seen {times} times: {missing}\n{text}"


def left(screen: str) -> str:
    """The list of conversations."""
    return "\n".join(line[:31] for line in screen.splitlines())


def test_replies_at_every_split():
    pieces: list[str] = []
    variants = 0
    for code in CODES:
        text = attack(code)
        splits = [[text[:i], text[i:]] for i in range(1, len(text))] if code not in LAYOUT else []
        variants = max(variants, len(splits) + 1)
        pieces += [piece for split in [*splits, list(text)] for piece in (*split, " ")]
        pieces.append("\n")
    terminal = spawn("scripted_program.py", json.dumps([*pieces, "\n\nfinished"]), "0", columns=430, lines=100)
    terminal.wait_for("ready", SECONDS)
    terminal.send("go\r")
    terminal.wait_for("finished", SECONDS)
    terminal.wait_for("ready", SECONDS)
    assert_all_seen(terminal.screen, variants)
    terminal.send("\x11")
    assert terminal.wait_for_exit(SECONDS) == 0
    assert_nothing_acted(terminal)


async def test_names_titles_and_excerpts():
    store = ChatStore()
    for code in CODES:
        chat = store.create().id
        store.turns.add(chat, None, "user", f"lighthouse {attack(code)}")
        store.rename(chat, attack(code))
    app = LocalLLMApp(hostile_chat, store=store, model=attack(0x1B))
    async with app.run_test(size=(110, 150)) as pilot:
        screen = await ready(pilot)
        begun = [sanitize(f"a{chr(code)}[77m") for code in SHOWN]  # a name is cut where the list ends
        await until(pilot, lambda: all(text in left(shown(app)) for text in begun), 30.0)
        assert_clean(app)
        screen.query_one("#search", Input).value = "lighthouse"
        excerpts = [sanitize(f"lighthouse a{chr(code)}") for code in SHOWN if not chr(code).isspace()]
        await until(pilot, lambda: all(text in left(shown(app)) for text in excerpts), 30.0)
        assert_clean(app)
        for key in ("ctrl+t", "ctrl+o"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, ChooseScreen), 30.0)
            assert_clean(app)
            await pilot.press("escape")


def assert_clean(app: LocalLLMApp) -> None:
    text = shown(app)
    assert {hex(ord(c)) for c in re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)} == set()


def test_metadata_of_a_model_file(tmp_path: Path, home: Home):
    everything = " ".join(attack(code) for code in CODES)
    source = read_header(ROOT / "tests" / "oracle" / "llama.gguf")
    copy_gguf(source, tmp_path / "hostile.gguf", metadata={"general.name": everything, "general.license": everything})
    terminal = Terminal([sys.executable, "-m", "localllm", "show", str(tmp_path / "hostile.gguf")], 200, 60)
    assert terminal.wait_for_exit(SECONDS) == 0
    assert_all_seen(terminal.screen.replace("\n", ""), 2)
    assert_nothing_acted(terminal)
