"""`localllm finetune` and `verify` as child processes: the loop, its mistakes, and leaving it in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from localllm.paths import Home
from localllm.weights.gguf import read_header
from localllm.weights.writer import copy_gguf
from tests.cli.helpers import fails, run
from tests.conftest import ROOT
from tests.weights.oracle import fixture

TICKETS = ROOT / "assets/tickets"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]]]:
    """A home with an adapter that was trained for a few steps, and the events of the run."""
    home = tmp_path_factory.mktemp("taught")
    command = [sys.executable, "-m", "localllm", "finetune", TICKETS / "train.jsonl", "--name", "tickets", "--json"]
    environment = {**os.environ, "LOCALLLM_HOME": str(home)}
    environment.pop("OPENBLAS_NUM_THREADS", None)  # as a person starts it, with the threads that it measures as best
    limits = ["--max-steps", "8", "--test", TICKETS / "heldout.jsonl"]
    done = subprocess.run([*command, *limits], env=environment, capture_output=True, text=True, timeout=300, check=True)
    return home, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def taught_home(taught: tuple[Path, list[dict[str, object]]], monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("LOCALLLM_HOME", str(taught[0]))
    return Home(taught[0])


def test_events_tell_the_whole_run(taught: tuple[Path, list[dict[str, object]]]) -> None:
    _, events = taught
    assert events[0]["event"] == "started"
    assert [e["step"] for e in events if e.get("phase") == "Step"] == list(range(1, 9))
    done = events[-1]
    assert done["event"] == "done"
    assert {"seconds", "tokens", "tokens_per_second", "peak_rss_mb", "adapter", "path", "verify"} <= done.keys()
    assert done["tested"] == 40
    assert isinstance(done["verify"], dict)
    assert done["verify"]["effect_cosine"] > 0.98


def test_the_adapter_is_listed_shown_used_and_verified(taught_home: Home) -> None:
    (row,) = run("list", "--json").json["adapters"]
    assert (row["name"], row["base"], row["verified"]) == ("tickets", "guide", True)
    facts = run("show", "tickets", "--json").json
    assert Path(facts["path"]).is_file()
    assert facts["verify"]["passed"] is True
    ticket = "Hello. Name: Jo Park. Order: A-12345. Product: garden lamp. It came late."
    base, adapted = run("ask", ticket), run("ask", "--adapter", "tickets", ticket)
    assert adapted.code == base.code == 0
    assert adapted.out != base.out
    verified = run("verify", "tickets", "--json")
    assert verified.code == 0
    assert verified.events[-1]["passed"] is True
    assert verified.events[-1]["kl"] < 2e-3


def test_an_adapter_that_was_tampered_with_fails_loudly(taught_home: Home, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    copy = tmp_path / "tampered"
    shutil.copytree(taught_home.adapters / "tickets", copy)
    weights = load_file(copy / "adapters.safetensors")
    save_file(
        {name: np.negative(w) if name.endswith("lora_b") else w for name, w in weights.items()},
        copy / "adapters.safetensors",
    )
    outcome = run("verify", copy)
    assert outcome.code == 1
    assert "NOT verified" in outcome.out
    assert "does something else in llama.cpp than in MLX" in outcome.err


def test_an_adapter_for_other_bytes_is_refused(taught_home: Home, stories: Path) -> None:
    fails(run("ask", "-m", stories, "-a", "tickets", "x"), 1, "was made for guide", "content hash")


@pytest.mark.parametrize(
    "content, words",
    [
        ("", ["empty"]),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n{"a": \n',
            ["line 2"],
        ),
        ('{"quest": "a", "reply": "b"}\n', ["line 1", "messages"]),
        ('{"messages": [{"role": "user", "content": "a"}]}\n', ["line 1", "assistant"]),
    ],
)
def test_mistakes_in_the_data_name_the_line(tmp_path: Path, content: str, words: list[str]) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(content)
    fails(run("finetune", data, "--name", "x"), 1, "rows.jsonl", *words)


def test_other_mistakes_are_one_clear_line(tmp_path: Path, taught_home: Home, stories: Path) -> None:
    rows = TICKETS / "train.jsonl"
    fails(run("finetune", tmp_path / "none.jsonl", "--name", "x"), 1, "none.jsonl")
    fails(run("finetune", rows, "--name", "tickets"), 1, "already an adapter named 'tickets'", "--overwrite")
    fails(run("finetune", rows, "--name", "../x"), 1, "cannot be an adapter's name")
    fails(run("finetune", rows, "--name", "x", "--max-length", "20"), 1, "--max-length", "--too-long skip")
    fails(run("finetune", rows, "--name", "x", "--learning-rate", "-1"), 2, "--learning-rate")
    fails(run("finetune", rows, "--name", "x", "-m", tmp_path), 1, "is a folder")


def test_an_architecture_that_cannot_be_trained_is_named(tmp_path: Path) -> None:
    model = tmp_path / "falcon.gguf"
    copy_gguf(read_header(fixture("llama")), model, metadata={"general.architecture": "falcon"})
    outcome = run("finetune", TICKETS / "train.jsonl", "--name", "x", "-m", model)
    fails(outcome, 1, "'falcon'", "gemma3, granite, llama")
    assert "no: " in run("show", model, "--json").json["can_be_trained"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_leaving_in_the_middle_leaves_nothing_behind(home: Home, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "localllm", "finetune", TICKETS / "train.jsonl", "--name", "cut", "--json"]
    with subprocess.Popen(
        [*command, "--epochs", "500"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        for line in child.stdout:
            if json.loads(line).get("phase") == "Step":
                child.send_signal(number)
                break
        _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert not [path for path in home.adapters.glob("**/*") if path.is_file()]
    deadline = time.monotonic() + 20
    while _trainers(home) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _trainers(home), "the training process has ended"


def _trainers(home: Home) -> list[str]:
    """Processes whose command line names this home's staging folders."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "localllm.tune" in words and str(home.root) in words:
            found.append(words)
    return found
