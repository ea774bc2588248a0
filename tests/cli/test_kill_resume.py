"""`kill -9` at random moments, also while a checkpoint is written: the same command ends with the same bits."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="finds the training process in /proc")
@pytest.mark.parametrize("kills, seed", [(3, 5), pytest.param(20, 6, marks=pytest.mark.long)], ids=["three", "twenty"])
def test_killed_runs_end_as_undisturbed_ones(kills: int, seed: int) -> None:
    options = ["--kills", str(kills), "--seed", str(seed), "--epochs", "2"]
    command = [sys.executable, "scripts/kill_resume.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    tally = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    assert done.returncode == 0, (tally, done.stderr)
    assert tally["kills"] == kills
    assert tally["identical"] == tally["trials"] > 0
    assert tally["resumed"] > 0
