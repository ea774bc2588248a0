"""What README promises of the demo: a fine-tune of the built-in model on 120 tickets, measured through llama.cpp."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.paths import Home
from tests.cli.helpers import run
from tests.conftest import ROOT

TICKETS = ROOT / "assets/tickets"


@pytest.mark.long
def test_the_demo_learns_its_task_and_is_verified(home: Home, tmp_path: Path) -> None:
    outcome = run(
        "finetune", TICKETS / "train.jsonl", "--name", "tickets", "--test", TICKETS / "heldout.jsonl", "--json"
    )
    assert outcome.code == 0, outcome.err
    done = outcome.events[-1]
    assert done["tested"] == 40
    assert done["exact_before"] <= 0.10
    assert done["exact_after"] >= 0.80
    verified = run("verify", "tickets", "--json").events[-1]
    assert verified["kl"] <= 2e-3
    assert verified["top1"] >= 0.97
    assert verified["effect_cosine"] >= 0.98
