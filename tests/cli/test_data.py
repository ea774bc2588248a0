"""`data check` and `data show` as a person runs them, on files of every kind."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.helpers import fails, run
from tests.conftest import ROOT

TICKETS = ROOT / "assets/tickets"


def written(tmp_path: Path, text: str, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_a_good_file_is_said_to_be_good() -> None:
    outcome = run("data", "check", TICKETS / "train.jsonl", "--valid", TICKETS / "heldout.jsonl")
    assert outcome.code == 0
    assert outcome.err == ""
    for words in ("120 chat", "40 rows of", "p95", "prompt", "learned", "█", "Usable: nothing was found wrong"):
        assert words in outcome.out


def test_a_file_with_bad_rows_fails_with_every_line(tmp_path: Path) -> None:
    good = '{"prompt": "p", "completion": "c"}\n'
    path = written(tmp_path, good + "{oops\n" + '{"text": null}\n' * 30 + good)
    outcome = run("data", "check", path)
    assert outcome.code == 1
    assert "line 2: not JSON" in outcome.out
    assert 'lines 3, 4, 5, 6, 7, 8, 9, 10 …: "text" must be text, found nothing. (30 of them)' in outcome.out
    assert "1 row is the same as an earlier one (line 33 repeats 1)" in outcome.out
    assert "NOT usable: 31 lines" in outcome.out
    report = run("data", "check", path, "--json")
    assert report.code == 1
    assert report.json["usable"] is False
    assert report.json["unusable"][1]["lines"] == list(range(3, 33))
    assert report.json["lengths"]["total"].keys() == {"p5", "p50", "p90", "p95", "p99", "max"}


def test_many_different_problems_are_cut_short_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "".join(f'{{"text": {" " * i}x}}\n' for i in range(50)))
    outcome = run("data", "check", path)
    assert outcome.out.count("not JSON") == 20
    assert "… and 30 more lines with 30 other problems (see --json)" in outcome.out


def test_warnings_leave_the_exit_code_at_zero(tmp_path: Path) -> None:
    path = written(tmp_path, '{"question": "Who?", "answer": "I"}\n{"question": "Who?", "answer": "You"}\n')
    outcome = run("data", "check", path, "--max-length", "10")
    assert outcome.code == 0
    assert "2 rows ask what another asks, with another answer (lines 1, 2)" in outcome.out
    assert "--too-long split" in outcome.out


def test_rows_are_shown_with_what_is_learned_in_brackets(tmp_path: Path) -> None:
    turns = '{"prompt": "a\\nb", "completion": "\\u001b]52;x\\u0007"}'
    path = written(tmp_path, f'{turns}\n{{"text": "one"}}\n{{"text": "two"}}\n')
    outcome = run("data", "show", path, "-n", "2")
    assert outcome.code == 0
    assert outcome.err == ""
    assert "\x1b" not in outcome.out
    first = "<|im_start|>user↵\na↵\nb<|im_end|>↵\n<|im_start|>assistant↵\n⟦␛]52;x␇<|im_end|>⟧\n"
    assert first in outcome.out
    assert "line 2 (text)" in outcome.out
    assert "two" not in outcome.out
    (last,) = run("data", "show", path, "--line", "3", "--json").events
    assert (last["line"], last["tokens"]) == (3, len(last["pieces"]))
    assert "".join(piece["text"] for piece in last["pieces"] if not piece["control"]) == "two"
    assert last["learned"] == sum(piece["learned"] for piece in last["pieces"])
    everything = run("data", "show", path, "-n", "1", "--train-on", "all")
    assert "⟦user↵" in everything.out


@pytest.mark.parametrize("no_colour", [False, True])
def test_a_terminal_gets_colours_unless_it_asks_not_to(tmp_path: Path, no_colour: bool) -> None:
    path = written(tmp_path, '{"prompt": "p", "completion": "c"}\n')
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"} | ({"NO_COLOR": "1"} if no_colour else {})
    command = [sys.executable, "-m", "localllm", "data", "show", path]
    subprocess.run(command, stdout=terminal, env=environment, check=True, timeout=60)
    os.close(terminal)
    out = os.read(main, 65536).decode()
    os.close(main)
    if no_colour:
        assert "\x1b" not in out
        assert "⟦c<|im_end|>⟧" in out
    else:
        assert "⟦" not in out
        assert "\x1b[32mc\x1b[0m" in out or "\x1b[92mc\x1b[0m" in out
        assert "\x1b[32mp" not in out
        assert "\x1b[92mp" not in out


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("none.jsonl", None, ["no such file"]),
        ("d.jsonl", b"", ["the file is empty", "A row is"]),
        ("d.jsonl", b"\x7fELF\0\0\0", ["binary file"]),
        ("d.csv", b"a,a\n1,2\n", ["line 1", "'a' is there twice"]),
        ("d.jsonl", b'{\n "a": 1\n}\n', ["one JSON object", '"a"']),
    ],
)
def test_files_that_are_no_datasets_are_one_clear_line(
    tmp_path: Path, name: str, content: bytes | None, words: list[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for command in ("check", "show"):
        fails(run("data", command, path), 1, name, *words)


def test_wrong_usage_is_exit_code_two(tmp_path: Path) -> None:
    path = written(tmp_path, '{"text": "a"}\n')
    fails(run("data", "show", path, "-n", "0"), 2, "-n must be 1 or more")
    fails(run("data", "check", path, "--max-length", "0"), 2, "--max-length must be more than 0")
    assert run("data").code == run("data", "look", path).code == 2


def test_finetune_names_the_ways_out_for_long_rows(tmp_path: Path) -> None:
    path = written(tmp_path, "".join(f'{{"question": "Who is {i}?", "answer": "It is {i}."}}\n' for i in range(6)))
    fails(run("finetune", path, "--name", "x", "--max-length", "4"), 1, "longer than 4 tokens", "--too-long split")
