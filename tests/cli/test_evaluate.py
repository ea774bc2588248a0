"""`localllm evaluate` as a child process, on the built-in model and an adapter of a few steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from localllm.paths import Home
from tests.cli.helpers import fails, run
from tests.conftest import ROOT

TICKETS = ROOT / "assets/tickets"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an adapter that was trained for a few steps on forty rows."""
    home = tmp_path_factory.mktemp("taught")
    rows = home / "few.jsonl"
    rows.write_text("".join((TICKETS / "train.jsonl").read_text().splitlines(keepends=True)[:40]))
    command = [sys.executable, "-m", "localllm", "finetune", str(rows), "--name", "few", "--max-steps", "6"]
    environment = {**os.environ, "LOCALLLM_HOME": str(home)}
    subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return home


@pytest.fixture
def taught_home(taught: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("LOCALLLM_HOME", str(taught))
    return Home(taught)


def test_a_table_a_verdict_and_a_page(taught_home: Home, tmp_path: Path) -> None:
    outcome = run("evaluate", "few", "--report", tmp_path / "r.html")
    assert outcome.code == 0, outcome.err
    head, loss, *_, verdict = outcome.out.splitlines()
    assert head.split() == ["base", "adapter", "change"]
    before, after, difference = map(float, loss.split()[1:])
    assert before > 1.0 > after
    assert difference == pytest.approx(after - before, abs=2e-4)
    for name in ("perplexity ", "perplexity, general text", "perplexity, other topics", "exact match"):
        assert any(line.startswith(name) for line in outcome.out.splitlines()), name
    assert verdict.startswith(f"Better: loss {before:.3f} → {after:.3f}")
    assert "4 held-out rows" in outcome.err
    page = (tmp_path / "r.html").read_text("utf-8")
    metrics = [json.loads(line) for line in (taught_home.adapters / "few/metrics.jsonl").read_text().splitlines()]
    assert verdict.split(" (")[0] in page
    assert page.count("<circle") == sum(e["event"] == "evaluated" for e in metrics)
    assert "held-out rows, tokens a row" in page
    assert str(taught_home.root) not in page
    trained = next(e for e in metrics if e["event"] == "trained")
    assert before == pytest.approx(trained["first_loss"], abs=0.1)  # MLX on the same rows, but for rounding
    assert after == pytest.approx(trained["best_loss"], abs=0.1)


def test_events_on_given_rows(taught_home: Home, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join((TICKETS / "heldout.jsonl").read_text().splitlines(keepends=True)[:6]))
    outcome = run("evaluate", "few", "--data", data, "--json", "--samples", "2")
    started, *progress, done = outcome.events
    assert (started["event"], started["kind"], started["rows"]) == ("started", "given", 6)
    assert {e["event"] for e in progress} == {"progress"}
    assert done["event"] == "done"
    assert done["verdict"]["outcome"] == "better"
    assert done["rows"]["loss"] < done["rows"]["base_loss"]
    assert len(done["samples"]) == 2
    assert {"seconds", "tokens", "tokens_per_second", "peak_rss_mb", "answers", "general", "other"} <= done.keys()
    assert outcome.err == ""


def test_a_report_that_cannot_be_written_does_not_cost_the_numbers(taught_home: Home, tmp_path: Path) -> None:
    target = tmp_path / f"{'x' * 240}.html"  # a name as long as it may be, but not with what is added beside it
    outcome = run("evaluate", "few", "--report", target)
    assert outcome.code == 1
    assert "exact match" in outcome.out
    assert "File name too long" in outcome.err.splitlines()[-1]
    assert list(tmp_path.glob("*.html*")) == list(tmp_path.glob(".*.tmp")) == []


def test_mistakes_are_one_line(taught_home: Home, tmp_path: Path, stories: Path) -> None:
    fails(run("evaluate", "fewer"), 1, "no adapter named 'fewer'", "Did you mean few?")
    fails(run("evaluate", "few", "--report", tmp_path / "rows.jsonl"), 2, "ends with .html")
    fails(run("evaluate", "few", "-m", stories), 1, "was made for guide")
    fails(run("evaluate", "few", "--data", tmp_path / "none.jsonl"), 1, "none.jsonl")
