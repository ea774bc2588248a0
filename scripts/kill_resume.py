"""Kill `localllm finetune` with SIGKILL at random moments, run the same command again, and compare to the bit.

    .venv/bin/python scripts/kill_resume.py --kills 50 --seed 0

Each trial is one run that is killed one to three times: at a random moment, or while a checkpoint is being written; the
program, its training process, or both. It then ends undisturbed, and its adapter, best adapter, optimizer, random
state, loss log and ordered list of rows have to equal those of a run that nobody disturbed. Half of the trials
accumulate 4 batches; all have dropout. Exits with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localllm.tune.checkpoint import Checkpoint, newest  # noqa: E402

WORDS = ("ball", "cat", "dog", "tree", "cake", "bird", "a long row of several words", "sun")
TIMES = ("tokens_per_second", "eta", "seconds", "load_seconds", "peak_rss_mb", "peak_mb")


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    arrays: dict[str, bytes]
    log: list[dict[str, Any]]
    adapter: bytes


@dataclass
class Tally:
    """What was done and found."""

    trials: int = 0
    kills: int = 0
    while_saving: int = 0
    identical: int = 0
    resumed: int = 0
    different: list[str] = field(default_factory=list)


class Subject:
    """One home with one run in it."""

    def __init__(self, folder: Path, model: Path, accumulate: int, epochs: int) -> None:
        self.home, self.run = folder / "home", folder / "home" / "runs" / "k"
        folder.mkdir(parents=True)
        rows = folder / "rows.jsonl"
        pairs = [{"prompt": f"Say {WORDS[i % 8]} {i}.", "completion": f" {WORDS[i % 8]}, bye {i}."} for i in range(36)]
        rows.write_text("\n".join(map(json.dumps, pairs)) + "\n")
        self.command = [
            sys.executable, "-m", "localllm", "finetune", str(rows), "-n", "k", "-m", str(model), "--json",
            "--epochs", str(epochs), "--dropout", "0.1", "--save-every", "1", "--batch-size", "4",
            "--accumulate", str(accumulate),
        ]  # fmt: skip
        self.env = os.environ | {"LOCALLLM_HOME": str(self.home)}

    def start(self) -> subprocess.Popen[str]:
        # a session of its own: what is killed is this and its child, and nothing else
        return subprocess.Popen(
            self.command, cwd=ROOT, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def finish(self) -> tuple[Outcome, bool]:
        """Run to the end; also whether it went on from a checkpoint."""
        last: Checkpoint | None = None
        resumed = False
        with self.start() as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stdout:
                phase = json.loads(line).get("phase")
                resumed = resumed or phase == "Resumed"
                if phase == "Trained":  # the folder is there until the adapter has been verified
                    last = newest(self.run).checkpoint
            said = process.stderr.read()
        if process.returncode or last is None:
            raise SystemExit(f"{' '.join(self.command)}\nended with {process.returncode}: {said}")
        adapter = self.home / "adapters" / "k"
        log = [json.loads(line) for line in (adapter / "metrics.jsonl").read_text().splitlines()]
        log = [{k: v for k, v in event.items() if k not in TIMES} for event in log]
        arrays = {name: repr((v.dtype, v.shape)).encode() + v.tobytes() for name, v in last.arrays.items()}
        return Outcome(arrays, log, (adapter / "adapters.safetensors").read_bytes()), resumed

    def kill(self, rng: random.Random, steps: int, seconds: float) -> str | None:
        """Start and kill. Returns how, or None when it had ended before."""
        with self.start() as process:
            while_saving = rng.random() < 0.4
            alive = self._wait_for_part(process, rng, steps) if while_saving else self._wait(process, rng, seconds)
            victims = rng.choice(("both", "program", "training"))
            child = _child(process.pid)
            with contextlib.suppress(ProcessLookupError):
                if child and victims != "program":
                    os.kill(child, signal.SIGKILL)
                if victims != "training" or not child:
                    process.kill()
            process.communicate()
        return None if not alive or process.returncode == 0 else "saving" if while_saving else "anywhere"

    def _wait(self, process: subprocess.Popen[str], rng: random.Random, seconds: float) -> bool:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=rng.uniform(0.2, seconds))
        return process.poll() is None

    def _wait_for_part(self, process: subprocess.Popen[str], rng: random.Random, steps: int) -> bool:
        """Until the file of a checkpoint has been begun for the n-th time."""
        wanted, seen = rng.randrange(1, max(2, steps // 2)), set[str]()
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):  # the folder goes when the run is over
                seen |= {name for name in os.listdir(self.run) if name.endswith(".part")}
            if len(seen) >= wanted:
                time.sleep(rng.choice((0.0, 0.0005, 0.002)))
                return True
        return False


def _child(pid: int) -> int | None:
    """The training process of a program."""
    with contextlib.suppress(OSError):
        for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"localllm.tune" in Path(f"/proc/{found}/cmdline").read_bytes():
                return int(found)
    return None


def compare(expected: Outcome, found: Outcome) -> list[str]:
    """Names of what differs."""
    problems = []
    for name in sorted({*expected.arrays, *found.arrays}):
        if expected.arrays.get(name) != found.arrays.get(name):
            problems.append(name)
    rows = [[e.get("rows") for e in o.log if e["event"] == "step"] for o in (expected, found)]
    if rows[0] != rows[1]:
        problems.append("the order of the rows")
    if expected.log != found.log:
        problems.append("the loss log")
    if expected.adapter != found.adapter:
        problems.append("the published adapter")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--model", type=Path, default=ROOT / "tests/oracle/llama.gguf")
    arguments = parser.parse_args()
    rng, tally = random.Random(arguments.seed), Tally()
    with tempfile.TemporaryDirectory() as temporary:
        folder, expected, seconds = Path(temporary), {}, {}
        for accumulate in (1, 4):
            started = time.monotonic()
            subject = Subject(folder / f"whole-{accumulate}", arguments.model, accumulate, arguments.epochs)
            expected[accumulate], _ = subject.finish()
            seconds[accumulate] = time.monotonic() - started
        while tally.kills < arguments.kills:
            accumulate = 1 if tally.trials % 2 == 0 else 4
            subject = Subject(folder / f"trial-{tally.trials}", arguments.model, accumulate, arguments.epochs)
            steps = sum(e["event"] == "step" for e in expected[accumulate].log)
            _trial(subject, expected[accumulate], rng, steps, seconds[accumulate], arguments.kills, tally)
            shutil.rmtree(subject.home.parent)
    print(json.dumps(vars(tally)))
    return 1 if tally.different or tally.identical != tally.trials else 0


def _trial(
    subject: Subject, expected: Outcome, rng: random.Random, steps: int, seconds: float, kills: int, tally: Tally
) -> None:
    """One run with its kills."""
    done = []
    for _ in range(min(rng.randrange(1, 4), kills - tally.kills)):
        if (how := subject.kill(rng, steps, seconds)) is None:
            break
        done.append(how)
    if (subject.home / "adapters" / "k" / "adapter.json").exists():  # it was too quick to be killed
        return
    found, resumed = subject.finish()
    problems = compare(expected, found)
    tally.trials += 1
    tally.kills += len(done)
    tally.while_saving += done.count("saving")
    tally.identical += not problems
    tally.resumed += resumed
    tally.different += [f"trial {tally.trials}: {name}" for name in problems[:5]]
    print(f"trial {tally.trials}: killed {', '.join(done) or 'never'}: {problems[:5] or 'identical'}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
