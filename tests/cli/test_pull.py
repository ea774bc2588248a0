"""`localllm pull` in a process of its own, against the test hub."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.helpers import fails, run
from tests.hub.server import HubServer, serving


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serving() as hub:
        for name in [name for name in os.environ if name.startswith("HF_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield hub


def test_pull_then_use_by_name(server: HubServer, guide_path: Path) -> None:
    server.repo("me/m-GGUF", {"m-Q4_K_M.gguf": guide_path, "m-BF16.gguf": bytes(9_000_000)}, tags=("license:mit",))
    shown = run("pull", "me/m-GGUF", "--dry-run")
    assert shown.out == "me/m-GGUF:Q4_K_M\n"
    assert "* Q4_K_M" in shown.err
    assert "BF16" in shown.err
    done = run("pull", "me/m-GGUF", "--json")
    started, *_, last = done.events
    assert (started["event"], started["taken"], started["license"]) == ("started", "Q4_K_M", "mit")
    assert (last["event"], last["name"], last["received"]) == ("done", "me/m-GGUF:Q4_K_M", guide_path.stat().st_size)
    listed = next(m for m in run("list", "--json").json["models"] if m["source"] == "hub")
    assert (listed["name"], listed["architecture"]) == ("me/m-GGUF:Q4_K_M", "llama")
    shown = run("show", "me/m-GGUF", "--json")
    assert (shown.json["repo"], shown.json["path"]) == ("me/m-GGUF", last["path"])
    answer = run("ask", "--model", "me/m-GGUF", "--max-tokens", "4", "Who are you?")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("I am")


def test_fit_reads_the_header_of_what_is_not_here(server: HubServer, guide_path: Path) -> None:
    server.repo("me/m-GGUF", {"m-Q4_K_M.gguf": guide_path})
    found = run("fit", "me/m-GGUF", "--json").json
    assert found["model"] == "me/m-GGUF:Q4_K_M"
    assert found["choices"][0]["fits"] is True
    assert found["training"]["bytes"] > found["chat"]["bytes"]
    assert server.bytes_sent() < 300_000
    fails(run("fit", "me/none"), 1, "There is no repository me/none")
    fails(run("fit", "none.gguf"), 1, "There is no file none.gguf")


def test_failures_are_one_line_with_what_to_do_next(
    server: HubServer, guide_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repo("me/m-GGUF", {"m-Q4_K_M.gguf": guide_path})
    fails(run("pull", "me/n-GGUF"), 1, "no repository me/n-GGUF", "Did you mean me/m-GGUF?")
    fails(run("pull", "me/m-GGUF:Q3"), 1, "has no Q3", "There are: Q4_K_M")
    fails(run("pull", "me/m-GGUF", "--revision", "v9"), 1, "no revision 'v9'")
    fails(run("pull", "guide"), 2, "comes with the program")
    fails(run("pull", "https://evil.example/me/m"), 2, "not an address of the hub")
    fails(run("pull", "me/m-GGUF", "--memory", "0"), 2, "--memory must be more than 0")
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    fails(run("pull", "me/m-GGUF"), 1, "does not accept your token", "/settings/tokens")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fails(run("pull", "me/m-GGUF"), 1, "HF_HUB_OFFLINE is set")
    fails(run("ask", "-m", "me/m-GGUF", "x"), 1, "localllm pull me/m-GGUF")


def test_ctrl_c_keeps_what_has_arrived(server: HubServer, guide_path: Path) -> None:
    server.repo("me/m-GGUF", {"m-Q4_K_M.gguf": guide_path})
    server.fault("")  # the header
    server.fault("stop", at=2_000_000, seconds=30)
    command = [sys.executable, "-m", "localllm", "pull", "me/m-GGUF", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if '"progress"' in line:
                process.send_signal(signal.SIGINT)
                break
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (130, 1), err
    assert "the same command goes on from there" in err
    last = run("pull", "me/m-GGUF", "--json").events[-1]
    assert last["kept"] > 0
    assert last["kept"] + last["received"] == guide_path.stat().st_size


def test_the_catalog_is_listed(server: HubServer) -> None:
    found = run("pull", "--json").json["models"]
    assert all({"name", "description", "license", "gguf"} <= set(card) for card in found)
    assert [card["parameters"] for card in found] == sorted(card["parameters"] for card in found)
