"""`localllm bench batch`: our engine on the prompts that llama.cpp's programs get."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from localllm.engine.llama import LlamaEngine
from localllm.types import Message
from tests.cli.helpers import fails, run

SERVER = """#!%s
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.answer({"status": "ok"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(%r, "a") as file:
            file.write(json.dumps([sys.argv[1:], body]) + "\\n")
        choices = [{"message": {"content": "x"}}]
        usage = {"prompt_tokens": 7, "completion_tokens": body["max_tokens"]}
        self.answer({"choices": choices, "usage": usage})

    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
BATCHED_BENCH = """#!/bin/sh
echo "$@" >> "%s"
echo 'llama_context: a warning{"n_kv_max": 512, "pp": 60, "speed_pp": 600.0, "speed_tg": 60.0, "speed": 1.0}'
"""
PYTHON = """#!/bin/sh
cp "$2" "%s"
echo '{"seconds": 30.0, "prompt_tokens": 300, "output_tokens": 12, "version": "9.9"}'
"""
SMALL = ["--documents", "3", "--document-tokens", "60", "--max-tokens", "4", "--runs", "1"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"Chapter {i} is about the house with {i} windows." for i in range(120)))
    return path


def program(path: Path, source: str) -> Path:
    path.write_text(source)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def peers(tmp_path: Path) -> list[str | Path]:
    """Programs that stand in for llama.cpp's and for a Python, and write down what they are asked."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    program(binaries / "llama-server", SERVER % (sys.executable, str(tmp_path / "asked")))
    program(binaries / "llama-batched-bench", BATCHED_BENCH % (tmp_path / "arguments"))
    python = program(tmp_path / "python", PYTHON % (tmp_path / "job"))
    return ["--peer-bin", binaries, "--peer", python]


def medians(report: dict[str, Any], work: str) -> dict[str, dict[str, Any]]:
    return {row["program"]: row for row in report["medians"] if row["work"] == work}


def test_every_program_gets_the_same_work(
    tmp_path: Path, text: Path, peers: list[str | Path], guide: LlamaEngine
) -> None:
    report = run("bench", "batch", "guide", text, *peers, *SMALL, "--slots", "2", "--json").json
    assert report["absent"] == []
    rows = medians(report, "documents")
    assert list(rows) == [
        "localllm, 2 slots",
        "localllm, 2 slots, in one process",
        "localllm, exact, 2 slots",
        "llama-server, 8 slots",
        "llama-cpp-python, one by one",
        "bound of llama-batched-bench, 2",
    ]
    ours, inside, exact, server, python, bound = rows.values()
    assert all(row["ratio"] == pytest.approx(ours["rate"] / row["rate"]) for row in rows.values())
    assert 0 < inside["overhead"] < 1
    assert ours["overhead"] is None
    assert python["rate"] == pytest.approx(60 * 3 / 30)

    asked = [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
    documents = [body for _, body in asked if body["messages"][0]["content"].startswith("Summarize")]
    prompts = sorted(body["messages"][0]["content"] for body in documents)
    job = json.loads((tmp_path / "job").read_text())
    assert prompts == sorted(job["prompts"])
    assert len(prompts) == 3
    assert all(len(guide.tokenize(prompt, add_special=False)) >= 60 for prompt in prompts)
    ends = [token for token in range(guide.info.n_vocab) if guide.vocab.is_end(token)]
    assert job["barred"] == ends
    assert all(body["logit_bias"] == [[token, False] for token in ends] for body in documents)
    assert {body["max_tokens"] for body in documents} == {job["max_tokens"]} == {4}

    measured = {run["program"]: run for run in report["measured"] if run["work"] == "documents"}
    tokens = sum(len(guide.encode_chat([Message("user", prompt)])) for prompt in prompts)
    for ours_too in (ours, inside, exact):
        assert measured[ours_too["program"]]["prompt_tokens"] == tokens
        assert measured[ours_too["program"]]["output_tokens"] == 12
    assert measured[server["program"]]["output_tokens"] == 12
    assert measured[bound["program"]]["seconds"] == pytest.approx(tokens / 600 + 12 / 60)
    average = round(tokens / 3)
    assert f"-npp {average} -ntg 4 -npl 2 " in (tmp_path / "arguments").read_text()


def test_a_shared_instruction_and_a_chat(tmp_path: Path, text: Path, peers: list[str | Path]) -> None:
    chosen = ["--programs", "ours", "--programs", "server", "--programs", "bound"]
    works = ["--work", "instruction", "--work", "chat"]
    report = run("bench", "batch", "guide", text, *peers, *SMALL, *works, *chosen, "--slots", "2", "--json").json
    ours, off, on = (row for row in report["measured"] if row["work"] == "instruction")
    assert ours["cached_tokens"] > 2 * 390  # of two of the three
    asked = [json.loads(line)[1] for line in (tmp_path / "asked").read_text().splitlines()]
    assert [body["cache_prompt"] for body in asked] == [False] * 3 + [True] * 3
    texts = {body["messages"][0]["content"] for body in asked}
    assert len({one[:600] for one in texts}) == 1
    assert len(texts) == 3
    assert (off["program"][-3:], on["program"][-2:]) == ("off", "on")
    chat, theirs = (row for row in report["measured"] if row["work"] == "chat")
    assert (chat["output_tokens"], chat["unit"]) == (128, "tokens/s")
    assert theirs["rate"] == 60.0


def test_lookup_tells_what_was_right(tmp_path: Path, text: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"text": f"Say {word} again. " * 8}) + "\n" for word in ("this", "that")))
    arguments = ["--work", "lookup", "--prompts", prompts, "--max-tokens", "24", "--runs", "2"]
    done = run("bench", "batch", "guide", text, *arguments, "--json")
    drafting, plain, *second = done.json["measured"]
    assert (drafting["program"], plain["program"]) == ("localllm, drafting", "localllm")
    assert [run["program"] for run in second] == ["localllm", "localllm, drafting"], (
        "no program is always the later one"
    )
    assert drafting["drafted_tokens"] >= drafting["accepted_tokens"] >= 0
    assert drafting["drafted_tokens"] > 0
    assert plain["drafted_tokens"] == 0
    share = drafting["accepted_tokens"] / drafting["drafted_tokens"]
    rows = medians(done.json, "lookup")
    assert rows["localllm, drafting"]["accepted"] == pytest.approx(share)
    pairs = [drafting["rate"] / plain["rate"], second[1]["rate"] / second[0]["rate"]]
    assert rows["localllm"]["ratio"] == pytest.approx(sum(pairs) / 2)
    assert rows["localllm"]["rate"] == pytest.approx((plain["rate"] + second[0]["rate"]) / 2)


def test_what_is_absent_is_said(tmp_path: Path, text: Path) -> None:
    python = program(tmp_path / "python", '#!/bin/sh\necho \'{"missing": "llama_cpp"}\'\n')
    broken = tmp_path / "bin"
    broken.mkdir()
    program(broken / "llama-server", "#!/bin/sh\necho cannot open the model >&2\nexit 1\n")
    places = ["--peer", python, "--peer-bin", broken, "--work", "documents", "--slots", "2"]
    done = run("bench", "batch", "guide", text, *places, *SMALL)
    assert done.code == 0
    assert "llama-server, 8 slots: not measured: cannot open the model" in done.err
    assert f"not measured: llama_cpp is not installed for {python}" in done.err
    assert "holds no llama-batched-bench" in done.err
    assert [line.split(",")[0].split()[-1] for line in done.out.splitlines()[1:4]] == ["localllm"] * 3


def test_mistakes_are_explained(tmp_path: Path, text: Path) -> None:
    fails(run("bench", "batch", "guide", text, "--runs", "0"), 2, "at least 1 run")
    fails(run("bench", "batch", "guide", text, "--documents", "0"), 2, "at least 1 document")
    fails(run("bench", "batch", "guide", tmp_path / "none.txt"), 2, "none.txt cannot be read")
    fails(run("bench", "batch", "guide", text), 1, "tokens, and 14400 are needed")
    fails(run("bench", "batch", "guide", text, "--work", "lookup"), 2, "--prompts FILE")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "Say this."}\n{"texts": 1}\n')
    fails(run("bench", "batch", "guide", text, "--work", "lookup", "--prompts", rows), 1, 'line 2: there is no "text"')
