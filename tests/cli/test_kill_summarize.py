"""`kill -9` at random moments, also while recovering from one: the same command ends with the same rows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("kills, seed", [(5, 3), pytest.param(40, 4, marks=pytest.mark.long)], ids=["five", "forty"])
def test_killed_runs_end_as_undisturbed_ones(kills: int, seed: int) -> None:
    command = [sys.executable, "scripts/kill_summarize.py", "--kills", str(kills), "--seed", str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    tally = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    assert done.returncode == 0, (tally, done.stderr)
    assert tally["kills"] == kills
    assert tally["identical"] == tally["trials"] > 0
    assert tally["asked_again"] == 0
    assert tally["reused"] > 0
