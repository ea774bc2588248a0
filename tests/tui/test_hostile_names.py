"""Names of files, models, adapters and conversations are data: none acts on a terminal, whatever it is made of.

All 65 control codes, a write to the clipboard, bidirectional and zero-width characters stand in every name that a home
and a folder can hold. A terminal emulator sees each screen that shows them, and every byte that was sent to it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localllm.paths import Home
from localllm.sanitize import sanitize_line
from localllm.tasks.conversations import open_store
from localllm.weights.gguf import read_header
from localllm.weights.writer import copy_gguf
from tests.tui.hostile import CODES, attack
from tests.tui.terminal import ROOT, Terminal
from tests.tui.test_control_codes import SECONDS, assert_nothing_acted

OSC_52 = "a\x1b]52;c;b3du\x07b"
HIDING = ["a\u202egpj.exe", "a\u2066b\u2069c", "a\u200b\u2060\ufeffb", "a\u061c\u200e\u200fb"]
TEXTS = [*map(attack, CODES), OSC_52, *HIDING]
NAMES = [text for text in TEXTS if "\0" not in text]
"""Those that a file can have; none is longer than the list of conversations is wide."""
ACTED = re.compile("[\x1b\x9d]\\]?52;|[\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f\u2060\u061c\ufeff]")
AT_ONCE = 8
"""Names that are offered when there are more."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home in `home`, and files to choose from in `files`, eight to a folder."""
    folder = tmp_path_factory.mktemp("hostile")
    home = Home(folder / "home")
    everything = " ".join(TEXTS)
    home.models.mkdir(parents=True)
    header = read_header(ROOT / "tests" / "oracle" / "llama.gguf")
    copy_gguf(header, folder / "model.gguf", metadata={"general.name": everything, "general.license": everything})
    for number, name in enumerate(NAMES):
        files = folder / "files" / f"{number // AT_ONCE}"
        files.mkdir(parents=True, exist_ok=True)
        (files / f"{name}.txt").write_text("The lighthouse is old.")
        os.link(folder / "model.gguf", home.models / f"{name}.gguf")
    adapter = home.adapters / "mine"  # its own name is checked; what it says of its base is not
    adapter.mkdir(parents=True)
    (adapter / "adapter.gguf").write_bytes(b"GGUF")
    manifest = {"name": everything, "base": {"name": everything, "sha256": OSC_52}, "training": {"data": everything}}
    (adapter / "adapter.json").write_text(json.dumps(manifest))
    store = open_store(home)
    for text in TEXTS:
        chat = store.create().id
        store.turns.add(chat, None, "user", f"lighthouse {text}")
        store.rename(chat, text)
    store.close()
    return folder


def start(place: Path, *command: str, columns: int = 220, lines: int = 100) -> Terminal:
    env = {"LOCALLLM_HOME": str(place / "home")}
    return Terminal([sys.executable, "-m", "localllm", *command], columns, lines, env, place / "files")


def click(terminal: Terminal, text: str) -> None:
    """With the mouse, where the text is: that needs no focus to be somewhere."""
    terminal.wait_for(text, SECONDS)
    lines = terminal.screen.splitlines()
    row = next(i for i, line in enumerate(lines) if text in line)
    at = f"{lines[row].index(text) + 1};{row + 1}"
    terminal.send(f"\x1b[<0;{at}M\x1b[<0;{at}m")


def click_for(terminal: Terminal, text: str, condition: Callable[[str], bool]) -> None:
    """Click until it has done what it is to do: a screen that is just being laid out may miss the first."""
    for _ in range(3):
        click(terminal, text)
        try:
            return terminal.wait_for(condition, SECONDS / 4)
        except AssertionError:
            continue
    terminal.wait_for(condition, SECONDS / 4)


def all_of(names: list[str], most: int = 200) -> Callable[[str], bool]:
    """Whether a screen shows all these names, cleaned."""
    wanted = [sanitize_line(name)[:most] for name in names]
    return lambda screen: all(name in screen for name in wanted)


def assert_inert(terminal: Terminal) -> None:
    assert_nothing_acted(terminal)
    assert not ACTED.search(terminal.raw)


def test_no_screen_of_the_app_lets_a_name_through(place: Path):
    terminal = start(place, "chat")
    terminal.wait_for("ready", SECONDS)
    terminal.wait_for(all_of(TEXTS[-60:], 20), SECONDS)  # titles
    click(terminal, "Search all text")
    terminal.send("lighthouse")
    terminal.wait_for(all_of([f"lighthouse {text}" for text in HIDING], 20), SECONDS)  # excerpts
    terminal.send("\x1b\x1b")
    for folder in range(len(NAMES) // AT_ONCE):
        offered = NAMES[folder * AT_ONCE : (folder + 1) * AT_ONCE]
        terminal.send(f"@{folder}/\t")
        terminal.wait_for(all_of([name for name in offered if name.splitlines() == [name]]), SECONDS)
        terminal.send("\x03")
    terminal.send("\x1b[18~")  # F7
    terminal.wait_for("Summaries to", SECONDS)
    click_for(terminal, "Browse", lambda screen: screen.count("📁") > len(NAMES) // AT_ONCE)
    terminal.send("\x1b[B\r")
    terminal.wait_for(all_of(NAMES[:AT_ONCE]), SECONDS)  # the tree
    terminal.send("\x1b[B\r")
    terminal.wait_for(lambda screen: "Take this folder" not in screen, SECONDS)
    terminal.send("\x1b[15~")  # F5
    terminal.wait_for("1 file, ", SECONDS)
    terminal.send("\x1b[20~")  # F9
    terminal.wait_for(all_of(NAMES[:10]), SECONDS)
    terminal.send("\x1b[B")
    terminal.wait_for("Where: ", SECONDS)  # what the file says of itself
    terminal.send("\x1b")
    terminal.wait_for("ready", SECONDS)
    terminal.send("\x14")  # Ctrl+T
    terminal.wait_for("was made for a␀[77m␀]0;own␀b", SECONDS)
    terminal.send("\x11")
    assert terminal.wait_for_exit(SECONDS) == 0
    assert_inert(terminal)


@pytest.mark.parametrize(
    "command, code",
    [("list", 0), ("chats list", 0), ("chats search lighthouse", 0), ("show {model}", 0), ("rm nix", 1)],
)
def test_no_command_lets_a_name_through(place: Path, command: str, code: int):
    """Of the last the error names all models."""
    model = place / "home" / "models" / f"{HIDING[0]}.gguf"
    terminal = start(place, *(part.format(model=model) for part in command.split()), columns=400)
    assert terminal.wait_for_exit(SECONDS) == code
    assert "⟨U+202E⟩" in terminal.raw or "␛]52;" in terminal.raw
    assert_inert(terminal)
