"""All 65 control codes from every place that text comes from, with a terminal emulator as the judge.

Each is tried as what begins an escape sequence and what ends one. Nothing may act on the terminal, and everything
must be seen.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import pytest

from localllm.paths import Home
from localllm.sanitize import sanitize, sanitize_line
from localllm.store.chats.store import ChatStore
from localllm.weights.gguf import read_header
from localllm.weights.writer import copy_gguf
from tests.tui.hostile_program import CODES, attack
from tests.tui.terminal import ROOT, Terminal

OWN = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][0-9]+;[^\x07\x1b]*(?:\x07|\x1b\\\\)|[=>78M]|P[^\x1b]*\x1b\\\\)")
"""Escape sequences that the app itself may send."""
LAYOUT = {0x09, 0x0A, 0x0D}
"""Codes that are white space: they are laid out, and act on nothing."""
SHOWN = [code for code in CODES if code not in LAYOUT]


def spawn(program: str, *arguments: str, columns: int, lines: int = 80, cwd: Path = ROOT) -> Terminal:
    return Terminal([sys.executable, str(ROOT / "tests" / "tui" / program), *arguments], columns, lines, cwd=cwd)


def assert_nothing_acted(terminal: Terminal) -> None:
    assert "owned" not in terminal.title
    assert not re.search("[\x1b\x9b]\\[?31337m", terminal.raw)
    assert not re.search("[\x1b\x9d]\\]?0;owned", terminal.raw)
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
    terminal = spawn("scripted_program.py", json.dumps([*pieces, "\n\nfinished"]), "0", columns=640, lines=100)
    terminal.wait_for("ready")
    terminal.send("go\r")
    terminal.wait_for("finished", seconds=60.0)
    terminal.wait_for("ready")
    assert_all_seen(terminal.screen, variants)
    terminal.send("\x11")
    assert terminal.wait_for_exit() == 0
    assert_nothing_acted(terminal)


def test_names_titles_and_excerpts(home: Home, tmp_path: Path):
    store = ChatStore(home.chats)
    for code in CODES:
        chat = store.create().id
        store.turns.add(chat, None, "user", f"lighthouse {attack(code)}")
        store.rename(chat, attack(code))
    store.close()
    files = tmp_path / "files"
    files.mkdir()
    for code in CODES[1:]:
        (files / f"notes{attack(code)}".replace("\x00", "")).write_text("text")
    terminal = spawn("hostile_program.py", columns=200, lines=160, cwd=files)
    terminal.wait_for("ready")
    assert_all_seen(terminal.screen)
    begun = [sanitize(f"a{chr(code)}[31337m") for code in SHOWN]  # a name is cut where the list ends
    terminal.wait_for(lambda screen: all(text in left(screen) for text in begun))
    terminal.send("\x1bOR")  # F3, to the search; nothing says in words that it has the focus now
    time.sleep(0.7)
    terminal.send("lighthouse")
    terminal.wait_for("found")
    excerpts = [sanitize(f"lighthouse a{chr(code)}") for code in SHOWN if not chr(code).isspace()]
    terminal.wait_for(lambda screen: all(text in left(screen) for text in excerpts))
    terminal.send("\x1b")
    terminal.wait_for("no adapter")
    terminal.send("@notes\t")
    terminal.wait_for(lambda screen: "notesa" in screen)
    terminal.send("\x15\x14")  # empty the input; the adapters to choose from
    terminal.wait_for("Which adapter?")
    terminal.send("\x1b")
    terminal.send("\x0f")  # the models
    terminal.wait_for("Go on with which model?")
    terminal.send("\x1b\x11")
    assert terminal.wait_for_exit() == 0
    assert_nothing_acted(terminal)


@pytest.mark.parametrize("key", ["general.name", "general.license"])
def test_metadata_of_a_model_file(tmp_path: Path, home: Home, key: str):
    everything = " ".join(attack(code) for code in CODES)
    source = read_header(ROOT / "tests" / "oracle" / "llama.gguf")
    copy_gguf(source, tmp_path / "hostile.gguf", metadata={key: everything})
    terminal = Terminal([sys.executable, "-m", "localllm", "show", str(tmp_path / "hostile.gguf")], 200, 60)
    assert terminal.wait_for_exit(30.0) == 0
    assert_all_seen(terminal.screen.replace("\n", ""))
    assert sanitize_line(everything)[:20] in terminal.screen
    assert_nothing_acted(terminal)
