"""Kill `localllm summarize` with SIGKILL at random moments, run the same command again, and compare to the byte.

    .venv/bin/python scripts/kill_summarize.py --kills 100 --seed 0

Each trial is one output that is killed one to four times, also while an earlier kill is being recovered from, the
program or its engine with it; in every second trial a document is edited in between. It then ends undisturbed, and its
rows, without the timings in them, have to be those of a run over the same documents that nobody disturbed, in the same
order. What was announced as answered may never be asked for again. Exits with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SUBJECTS = (
    "The harbour",
    "A new school",
    "The old mill",
    "Her brother",
    "The last train",
    "A small bakery",
    "The council",
)
VERBS = ("was opened", "lost a window", "moved to the river", "was painted green", "waited for rain", "closed early")
TIMES = ("in March", "after the storm", "on Monday", "for the second time", "without a word", "at noon")


@dataclass
class Tally:
    """What was done and found."""

    trials: int = 0
    kills: int = 0
    edits: int = 0
    identical: int = 0
    reused: int = 0
    """Answers that a killed run had kept for the next one."""
    asked_again: int = 0
    different: list[str] = field(default_factory=list)


class Subject:
    """One folder of documents and one output."""

    def __init__(self, folder: Path, slots: int) -> None:
        self.notes, self.out = folder / "notes", folder / "out.jsonl"
        self.notes.mkdir(parents=True)
        for number in range(8):
            self.edit(number, number)
        self.command = [
            sys.executable, "-m", "localllm", "summarize", "notes", "--out", "out.jsonl", "--json", "--part-tokens",
            "120", "--max-tokens", "32", "--slots", str(slots),
        ]  # fmt: skip
        self.folder, self.env = folder, os.environ | {"LOCALLLM_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
        self.answered: set[tuple[Any, ...]] = set()
        self.again = 0

    def edit(self, number: int, seed: int) -> None:
        """Write a document of 1 to 40 sentences."""
        rng = random.Random(seed)
        lines = [f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} {rng.choice(TIMES)}." for _ in range(1 + number * number)]
        (self.notes / f"{number}.txt").write_text(" ".join(lines) + "\n")

    def run(self, seconds: float | None = None, engine_too: bool = False) -> tuple[bool, dict[str, Any]]:
        """Run; kill it after so many seconds. Returns whether it was killed, and its last event."""
        # a session of its own: what is killed is this and its child, and nothing else
        with subprocess.Popen(
            self.command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                out, err = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                if engine_too:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
                out, err = process.communicate()
        events = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
        self._note(events)
        if process.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"{' '.join(self.command)}\nended with {process.returncode}: {err}")
        return process.returncode != 0, events[-1] if events else {}

    def rows(self) -> list[Any]:
        rows = [json.loads(line) for line in self.out.read_text("utf-8").splitlines()]
        return [{name: value for name, value in row.items() if name != "timings"} for row in rows]

    def forget(self, number: int) -> None:
        """An edited document is asked about anew."""
        self.answered = {key for key in self.answered if key[0] != f"notes/{number}.txt"}

    def _note(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["event"] == "progress" and "source" in event:
                key = tuple(event[name] for name in ("source", "level", "start", "end", "text"))
                self.again += key in self.answered and event["level"] == 0
                self.answered.add(key)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slots", type=int, default=4)
    arguments = parser.parse_args()
    rng, tally = random.Random(arguments.seed), Tally()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        whole = Subject(folder / "whole", arguments.slots)
        started = time.monotonic()
        whole.run()
        seconds = time.monotonic() - started
        while tally.kills < arguments.kills:
            subject = Subject(folder / f"trial-{tally.trials}", arguments.slots)
            # the shortest so far: on a busy machine a longer one would have every kill come after the end
            seconds = min(seconds, _trial(subject, folder, rng, seconds, arguments.kills, tally))
    print(json.dumps(vars(tally)))
    return 1 if tally.different or tally.asked_again or tally.identical != tally.trials else 0


def _trial(subject: Subject, folder: Path, rng: random.Random, seconds: float, kills: int, tally: Tally) -> float:
    """One output with its kills. Returns the seconds of an undisturbed run."""
    tally.trials += 1
    edited: dict[int, int] = {}
    done = 0
    for _ in range(min(rng.randrange(1, 5), kills - tally.kills)):
        killed, _ = subject.run(rng.uniform(0.3, 1.0) * seconds, engine_too=rng.random() < 0.5)
        done += killed
        if tally.trials % 2 == 0 and rng.random() < 0.5:
            number = rng.randrange(8)
            edited[number] = rng.randrange(100, 10**6)
            subject.edit(number, edited[number])
            subject.forget(number)
    _, last = subject.run()
    undisturbed = Subject(folder / f"undisturbed-{tally.trials}", rng.choice((1, 2, 4, 8)))
    for number, seed in edited.items():
        undisturbed.edit(number, seed)
    started = time.monotonic()
    undisturbed.run()
    seconds = time.monotonic() - started
    same = subject.rows() == undisturbed.rows()
    left = sorted(path.name for path in subject.folder.iterdir())
    tally.kills += done
    tally.edits += len(edited)
    tally.identical += same
    tally.reused += last["reused"]
    tally.asked_again += subject.again
    if not same or left != ["home", "notes", "out.jsonl"]:
        tally.different.append(f"trial {tally.trials}: {left}")
    print(
        f"trial {tally.trials}: {done} kills, {len(edited)} edits: {'identical' if same else 'DIFFERENT'}",
        file=sys.stderr,
    )
    return seconds


if __name__ == "__main__":
    sys.exit(main())
