"""The command line as a whole: help, versions, usage, signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from localllm.cli.main import COMMANDS, build_parser
from tests.cli.helpers import run


def test_help_lists_every_command() -> None:
    outcome = run("--help")
    assert outcome.code == 0
    for name, line in COMMANDS.items():
        assert name in outcome.out
        assert line in outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as info:
        build_parser(command).parse_args([command, "--help"])
    assert info.value.code == 0
    assert "--debug" in capsys.readouterr().out


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    assert run("--version").out == f"localllm {version('localllm')}\n"


@pytest.mark.parametrize("arguments", [["frobnicate"], ["ask", "--no-such-option", "x"], ["summarize"]])
def test_usage_errors_exit_with_2(arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert "usage: localllm" in outcome.err


def test_chat_without_a_terminal_points_to_ask() -> None:
    outcome = run()
    assert outcome.code == 2
    assert outcome.err.startswith("localllm: Chat needs a terminal. For one answer use `localllm ask")


def test_a_reader_that_leaves_ends_the_program_quietly() -> None:
    command = f"{sys.executable} -m localllm ask --logit-bias 2=-inf --max-tokens 400 Hello | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL
    )
    assert done.stderr == ""


def test_ctrl_c_during_an_answer_exits_with_130_at_once() -> None:
    command = [sys.executable, "-m", "localllm", "ask", "--logit-bias", "2=-inf", "--logit-bias", "0=-inf", "Hello"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.read(1)
        child.send_signal(signal.SIGINT)
        begin = time.monotonic()
        _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert err.decode().strip() == "localllm: Stopped."
    assert time.monotonic() - begin < 30


def test_a_home_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("LOCALLLM_HOME", str(blocker / "home"))
    assert run("ask", "Hello").code == 0, "reading needs no home"
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n' * 20)
    outcome = run("finetune", data, "--name", "x", "--max-steps", "1")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert str(blocker) in outcome.err
