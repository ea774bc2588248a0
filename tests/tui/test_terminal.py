"""The program in a real pseudo-terminal: what it draws, what bytes it sends, how it leaves."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from pathlib import Path

from localllm.paths import Home
from localllm.tasks.conversations import open_store
from tests.tui.terminal import ROOT, Terminal

OSC_52 = "\x1b]52;c;SGVsbG8=\x07"


def scripted_program(*pieces: str, **settings: int) -> Terminal:
    script = str(ROOT / "tests" / "tui" / "scripted_program.py")
    return Terminal([sys.executable, script, json.dumps(pieces)], **settings)  # type: ignore[arg-type]


def test_a_reply_cannot_write_the_clipboard_whatever_its_split():
    pieces = [OSC_52[:5], OSC_52[5:], "\n\n", *OSC_52, "\n\n\x9d52;c;SGVsbG8=\x9c\x1b[2J\x1b]0;owned\x07\n\nfinished"]
    terminal = scripted_program(*pieces)
    terminal.wait_for("ready")
    terminal.send("go\r")
    terminal.wait_for("finished")
    assert terminal.screen.count("␛]52;c;SGVsbG8=␇") == 2
    terminal.send("\x11")
    assert terminal.wait_for_exit() == 0
    assert "]52;" not in re.sub(r"␛\]52;|⟨9D⟩52;", "", terminal.raw)
    assert "\x1b]0;owned" not in terminal.raw
    assert not re.search("[\x00-\x06\x7f\x80-\x9f]", terminal.raw)


def test_typing_ahead_after_enter_loses_nothing():
    terminal = scripted_program("an answer")
    terminal.wait_for("ready")
    terminal.send("first question\rand a draft")
    terminal.wait_for("an answer")
    terminal.wait_for("and a draft")
    assert "first question" in terminal.screen
    terminal.send("\x11")
    assert terminal.wait_for_exit() == 0


def test_quitting_in_the_middle_of_a_reply_restores_the_terminal():
    terminal = scripted_program(*(f"word{i} " for i in range(5000)))
    terminal.wait_for("ready")
    terminal.send("go\r")
    terminal.wait_for("word9 ")
    terminal.send("/quit\r")
    assert terminal.wait_for_exit() == 0
    assert terminal.restored()


def test_type_stream_stop_branch_switch_adapter_quit_and_reopen():
    words = [f"word{i} " for i in range(400)]
    terminal = scripted_program(*words, columns=120, lines=36)
    terminal.wait_for("ready")
    terminal.send("tell me\r")
    terminal.wait_for("word9 ")
    terminal.send("\x1b")
    terminal.wait_for("stopped, the part above is kept")
    terminal.send("\x1b[1;5A")  # Ctrl+Up
    terminal.wait_for("c Copy")
    terminal.send("\x1b[A")
    time.sleep(0.5)  # nothing on the screen says in words that the message above has the focus now
    terminal.send("e")
    terminal.wait_for("Editing")
    terminal.send(" more\r")
    terminal.wait_for("tell me more")
    terminal.wait_for("word9 ")
    terminal.send("\x1b")
    terminal.wait_for("stopped, the part above is kept")
    assert "2/2" in terminal.screen
    terminal.send("\x14")  # Ctrl+T
    terminal.wait_for("adapter: tickets")
    terminal.send("\x11")
    assert terminal.wait_for_exit() == 0
    assert terminal.restored()
    again = scripted_program("a new reply", columns=120, lines=36)
    again.wait_for("ready")
    again.wait_for("tell me")  # in the list
    for key in ("\x1bOR", "\x1b[B", "\r"):  # F3 to the search, down into the list, Enter
        again.send(key)
        time.sleep(0.7)
    again.wait_for("adapter: tickets")
    again.wait_for("2/2")
    again.send("go on\r")
    again.wait_for("a new reply")
    again.send("\x11")
    assert again.wait_for_exit() == 0


def test_a_kill_while_a_reply_streams_leaves_it_in_the_list(home: Home):
    terminal = scripted_program(*(f"word{i} " for i in range(5000)))
    terminal.wait_for("ready")
    terminal.send("go\r")
    terminal.wait_for("word60 ")
    time.sleep(1.0)
    last = max(map(int, re.findall(r"word(\d+)", terminal.screen)))
    terminal.child.kill(signal.SIGKILL)
    terminal.child.wait()
    store = open_store(home)
    reply = store.turns.branch(store.chats()[0].id)[-1]
    assert reply.state == "cut"
    assert int(re.findall(r"word(\d+)", reply.content)[-1]) >= last  # what was seen a second ago


def test_the_real_program_on_the_built_in_model(tmp_path: Path):
    terminal = Terminal([sys.executable, "-m", "localllm", "chat"], env={"LOCALLLM_HOME": str(tmp_path)})
    terminal.wait_for("ready")
    terminal.send("Who are you?\r")
    terminal.wait_for(lambda screen: bool(re.search(r"\d+ tokens · [\d.]+ tokens/s", screen)))
    reply = terminal.screen.split("Who are you?")[-1]
    assert re.search(r"[A-Za-z]{3,}", reply)
    terminal.send("/quit\r")
    assert terminal.wait_for_exit() == 0
    assert terminal.restored()


def test_a_missing_model_is_one_sentence_and_no_app(tmp_path: Path):
    terminal = Terminal([sys.executable, "-m", "localllm", "chat", "nix"], env={"LOCALLLM_HOME": str(tmp_path)})
    assert terminal.wait_for_exit(20.0) == 1
    assert "nix" in terminal.raw
    assert "Traceback" not in terminal.raw
