"""A run that was left: who holds it, what may go on from it, and what may not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from localllm.errors import StorageError, UsageError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.finetune import Done, FinetuneRequest, finetune
from localllm.tasks.runs import RunFolder
from localllm.tune import checkpoint
from localllm.tune.events import Resumed, Step, Warned
from tests.conftest import ROOT
from tests.weights.oracle import fixture


def asked(tmp_path: Path, **settings: Any) -> FinetuneRequest:
    path = tmp_path / "rows.jsonl"
    n = settings.pop("n", 24)
    path.write_text("".join(json.dumps({"prompt": f"Say {i}.", "completion": f" {i}"}) + "\n" for i in range(n)))
    settings = {"epochs": 4, "save_every": 1, "name": "run", "model": str(fixture("llama")), **settings}
    return FinetuneRequest(data=path, **settings)


@pytest.fixture
def left(tmp_path: Path) -> Registry:
    """A home with a run that was left after five steps."""
    registry = Registry(Home(tmp_path / "home"))
    events = finetune(registry, asked(tmp_path))
    for event in events:
        if isinstance(event, Step) and event.step == 5:
            break
    events.close()  # type: ignore[attr-defined]
    return registry


def test_the_same_goes_on_and_restart_does_not(tmp_path: Path, left: Registry) -> None:
    events = list(finetune(left, asked(tmp_path, resume=True)))
    (resumed,) = [e.step for e in events if isinstance(e, Resumed)]
    assert resumed >= 4  # the child may be a step ahead of what its parent has read
    assert isinstance(events[-1], Done)
    with pytest.raises(UsageError, match="no unfinished run named 'run'"):
        list(finetune(left, asked(tmp_path, resume=True, overwrite=True)))


def test_restart_begins_anew(tmp_path: Path, left: Registry) -> None:
    events = list(finetune(left, asked(tmp_path, restart=True, learning_rate=1e-4)))
    assert next(e.step for e in events if isinstance(e, Step)) == 1
    assert isinstance(events[-1], Done)


@pytest.mark.parametrize(
    "changes, difference",
    [
        ({"learning_rate": 1e-4}, r"--learning-rate was 0\.0008, now 0\.0001"),
        ({"accumulate": 2, "seed": 3}, "--seed was 0, now 3; --accumulate was 1, now 2"),
        ({"n": 30}, "the number of training rows was 22, now 27"),
        ({"model": "qwen2"}, "the model's content hash was"),
        ({"targets": "q_proj,v_proj"}, r"--targets was the usual ones, now self_attn\.q_proj,self_attn\.v_proj"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_changed_is_named(tmp_path: Path, left: Registry, changes: dict[str, Any], difference: str) -> None:
    if "model" in changes:
        changes = changes | {"model": str(fixture(changes["model"]))}
    with pytest.raises(UsageError, match=difference) as caught:
        list(finetune(left, asked(tmp_path, **changes)))
    assert "--restart" in caught.value.hint
    assert checkpoint.newest(left.home.runs / "run").checkpoint is not None


def test_damage_is_said(tmp_path: Path, left: Registry) -> None:
    newest, before = sorted(left.home.runs.glob("run/*.checkpoint"), reverse=True)
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    events = finetune(left, asked(tmp_path))
    said = [next(e for e in events if isinstance(e, kind)) for kind in (Warned, Resumed)]
    assert newest.name in str(said[0])
    assert said[1].step == int(before.name[5:14])
    events.close()  # type: ignore[attr-defined]
    for path in left.home.runs.glob("run/*.checkpoint"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    events = finetune(left, asked(tmp_path))
    assert "No checkpoint of the run 'run' is whole" in str(next(e for e in events if isinstance(e, Warned)))
    assert next(e for e in events if isinstance(e, Step)).step == 1
    events.close()  # type: ignore[attr-defined]


def test_an_older_format_is_named(tmp_path: Path, left: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localllm.tune.resume.FORMAT", checkpoint.FORMAT + 1)
    with pytest.raises(UsageError, match="the format of checkpoints was 1, now 2"):
        list(finetune(left, asked(tmp_path)))


def test_two_runs_of_one_name_and_who_holds_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    code = (
        "import sys; from pathlib import Path; from localllm.paths import Home\n"
        "from localllm.tasks.runs import RunFolder\n"
        "with RunFolder(Home(Path(sys.argv[1])), 'run'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(home.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=f"'run' is going on in process {other.pid}"), RunFolder(home, "run"):
            pass
        with RunFolder(home, "another"):
            pass
        other.communicate()
    with RunFolder(home, "run") as run:
        assert (run.folder / "lock").read_text() == f"{os.getpid()}\n"
    assert not run.folder.exists()


def test_the_child_of_a_killed_parent_is_waited_for(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    code = (
        "import os, subprocess, sys; from pathlib import Path; from localllm.paths import Home\n"
        "from localllm.tasks.runs import RunFolder\n"
        "with RunFolder(Home(Path(sys.argv[1])), 'run') as run:\n"
        "    subprocess.Popen(['sleep', '1.5'], pass_fds=(run.lock,), stdout=subprocess.DEVNULL)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(home.root)], cwd=ROOT, check=False, timeout=60)
    started = time.monotonic()
    with RunFolder(home, "run"):
        assert 0.3 < time.monotonic() - started < 9
