"""Pull again and again from a hub that misbehaves, killed in between and in two processes at once; what comes of it?

    .venv/bin/python scripts/faults.py --faults 200 --seed 0
    .venv/bin/python scripts/faults.py --corruptions 10000
    .venv/bin/python scripts/faults.py --rate FILE        beside curl, through the same local server
    .venv/bin/python scripts/faults.py --list 200         how long `localllm list` takes with so many models

Each trial is one pull of a model with a few faults of the kinds below waiting for it, run as `localllm pull` in a
process of its own that may be killed with SIGKILL, alone or beside a second one; it is repeated until it succeeds, as
a person would. Whatever happens, a model in the registry must be complete and have the hub's hash, and every failure
must be one line. Exits with 1 when anything else is found. The hub is that of the tests, on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from localllm.errors import IntegrityError  # noqa: E402
from localllm.hub.download import download  # noqa: E402
from localllm.hub.http import Hub  # noqa: E402
from localllm.hub.listing import list_repository  # noqa: E402
from localllm.hub.partial import STEP  # noqa: E402
from localllm.hub.surroundings import Surroundings  # noqa: E402
from localllm.paths import Home  # noqa: E402
from localllm.store.pulled import pulled_models  # noqa: E402
from localllm.store.registry import Registry  # noqa: E402
from tests.hub.server import Fault, HubServer, serving  # noqa: E402

KINDS = (
    "drop", "wrong", "length", "whole", "etag", "range", "busy", "500", "hang", "drip", "loop", "moved", "503",
    "compressed", "403", "not-json",
)  # fmt: skip
ALL_AGAIN = ("wrong",)
"""Kinds after which everything has to be fetched again: what had arrived proved wrong."""
TRIES = 12
RATE = 40_000_000
"""Bytes a second that the hub sends, so that a kill finds something under way."""


@dataclass
class Tally:
    """What was done and found."""

    trials: int = 0
    pulls: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    pairs: int = 0
    complete: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """Clear errors on the way, by the first words of what they say."""
    excess: list[int] = field(default_factory=list)
    """Bytes that came more than once, of each trial in which nothing proved wrong; one step for every kill allowed."""
    problems: list[str] = field(default_factory=list)


class Subject:
    """A home, a cache and a repository of one model of about `size` bytes."""

    def __init__(self, server: HubServer, folder: Path, size: int, rng: random.Random) -> None:
        self.server, self.folder = server, folder
        self.repo = f"me/trial{rng.randrange(10**9)}-GGUF"
        model = (ROOT / "models" / "guide.gguf").read_bytes()
        self.content = model + rng.randbytes(max(0, size - len(model)))  # a tail that no tensor uses
        self.sha256 = hashlib.sha256(self.content).hexdigest()
        server.repo(self.repo, {"m-Q4_K_M.gguf": self.content})
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | {
            "HF_ENDPOINT": server.endpoint, "HF_HOME": str(folder / "hf"), "LOCALLLM_HOME": str(folder / "home"),
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        }  # fmt: skip

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "localllm", "pull", self.repo, "--json"]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def sent(self) -> int:
        """Bytes of the file that left the store, without those of headers that were read to choose."""
        asked = [a for a in self.server.asked if a.place == "store" and "-262143" not in a.range]
        return sum(a.sent[0] for a in asked)

    def check(self, tally: Tally) -> bool:
        """Whether the model is registered; a broken one is a problem."""
        models = pulled_models(self.folder / "home" / "pulled")
        for model in models:
            path = Path(model.path)
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != self.sha256:
                tally.problems.append(f"{self.repo}: a broken model is registered")
        return bool(models)


def trial(server: HubServer, folder: Path, rng: random.Random, tally: Tally) -> None:
    """One model, from its first pull to the one that succeeds."""
    subject = Subject(server, folder, rng.randrange(1, 4) * STEP + rng.randrange(STEP), rng)
    server.faults, server.asked = [], []
    faults = [_fault(rng, len(subject.content)) for _ in range(rng.randrange(2, 5))]
    server.faults += faults
    tally.trials += 1
    kills, pair = rng.choice((0, 0, 1, 2)), rng.random() < 0.25
    tally.pairs += pair
    killed = 0
    for _ in range(TRIES):
        processes = [subject.start() for _ in range(2 if pair else 1)]
        tally.pulls += len(processes)
        if killed < kills:
            killed += _kill(rng.choice(processes), subject, rng)
        codes = [_finish(process, tally, subject) for process in processes]
        registered = subject.check(tally)
        if 0 in codes and not registered:
            tally.problems.append(f"{subject.repo}: a pull succeeded, and nothing is registered")
        if all(code == 0 for code in codes):
            break
    else:
        tally.problems.append(f"{subject.repo}: no success in {TRIES} pulls with {[f.kind for f in faults]}")
    tally.kills += killed
    met = [fault.kind for fault in faults if fault not in server.faults]
    tally.faults.update(met)
    tally.complete += subject.check(tally)
    if not set(met) & set(ALL_AGAIN):
        tally.excess.append(max(0, subject.sent() - len(subject.content) - killed * STEP))
    shutil.rmtree(folder)
    server.repos.clear()


def _fault(rng: random.Random, size: int) -> Fault:
    """One of the kinds, somewhere; times are short enough to wait for."""
    kind = rng.choice(KINDS)
    place = {"loop": "resolve", "not-json": "hub", "moved": "resolve"}.get(kind)
    place = place or rng.choice(("store", "store", "store", "resolve" if kind in ("busy", "500", "503") else "store"))
    seconds = {"busy": 1.0, "hang": 1.5, "drip": 0.01}.get(kind, 0.0)
    return Fault(kind, place, rng.randrange(size), seconds)


def _kill(process: subprocess.Popen[str], subject: Subject, rng: random.Random) -> bool:
    """SIGKILL once a random part of the rest has been sent; whether there was still something to kill."""
    start = subject.sent()
    wanted = start + rng.randrange(len(subject.content))
    while process.poll() is None:
        if subject.sent() >= wanted:
            process.kill()
            return True
        time.sleep(0.002)
    return False


def _finish(process: subprocess.Popen[str], tally: Tally, subject: Subject) -> int:
    _, err = process.communicate(timeout=600)
    if process.returncode > 0:
        lines = err.strip().splitlines()
        if len(lines) != 1 or not lines[0].startswith("localllm: "):
            tally.problems.append(f"{subject.repo}: not one clear line: {err[-300:]!r}")
        tally.refused[" ".join(lines[-1].replace(subject.repo, "REPO").split()[1:8])] += 1
    return process.returncode


def run_faults(wanted: int, seed: int) -> int:
    rng, tally = random.Random(seed), Tally()
    with serving() as server, tempfile.TemporaryDirectory() as temporary:
        server.rate = RATE
        while tally.faults.total() < wanted:
            trial(server, Path(temporary) / f"trial-{tally.trials}", rng, tally)
            print(
                f"trial {tally.trials}: {tally.faults.total()} faults, {len(tally.problems)} problems", file=sys.stderr
            )
    excess = tally.excess
    print(json.dumps({
        **vars(tally), "kinds": len(tally.faults), "excess": {
            "trials": len(excess), "median": statistics.median(excess), "mean": round(statistics.mean(excess)),
            "most": max(excess), "step": STEP, "over_a_step": sum(value > STEP for value in excess),
        },
    }))  # fmt: skip
    return 1 if tally.problems or tally.complete != tally.trials else 0


def run_corruptions(count: int, seed: int) -> int:
    """Single wrong bytes, each in a transfer of its own through the code that a pull runs."""
    rng, rejected = random.Random(seed), 0
    content = rng.randbytes(20_000)
    with serving() as server, tempfile.TemporaryDirectory() as temporary:
        server.repo("me/m", {"m.gguf": content})
        here = Surroundings(server.endpoint, Path(temporary))
        with Hub(here) as hub:
            repository = list_repository(hub, "me/m")
            for _ in range(count):
                server.fault("wrong", at=rng.randrange(len(content)))
                try:
                    list(download(hub, repository, repository.files))
                except IntegrityError:
                    rejected += not any((Path(temporary) / "models--me--m" / "blobs").iterdir())
                server.asked.clear()
    print(json.dumps({"corruptions": count, "rejected": rejected}))
    return int(rejected != count)


def run_rate(file: Path, runs: int) -> int:
    """MB/s of curl and of our download, hash and all, in turns."""
    rates: dict[str, list[float]] = {"curl": [], "ours": []}
    size = file.stat().st_size
    with serving() as server, tempfile.TemporaryDirectory(dir=file.parent) as temporary:
        server.repo("me/m", {"m.gguf": file})
        address = f"{server.endpoint}/me/m/resolve/main/m.gguf"
        for run in range(runs):
            started = time.perf_counter()
            subprocess.run(["curl", "-sL", "-o", f"{temporary}/curl.bin", address], check=True)
            rates["curl"].append(size / 1e6 / (time.perf_counter() - started))
            Path(temporary, "curl.bin").unlink()
            cache = Path(temporary) / f"hub{run}"
            script = (
                "import sys, time; from pathlib import Path; from localllm.hub.http import Hub; "
                "from localllm.hub.surroundings import Surroundings; from localllm.hub.download import download; "
                "from localllm.hub.listing import list_repository; "
                "import httpx2, huggingface_hub.hf_api, filelock; t = time.perf_counter()\n"
                "with Hub(Surroundings(sys.argv[1], Path(sys.argv[2]))) as hub:\n"
                "    r = list_repository(hub, 'me/m'); list(download(hub, r, r.files)); print(time.perf_counter() - t)"
            )
            command = [sys.executable, "-c", script, server.endpoint, str(cache)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            rates["ours"].append(size / 1e6 / float(done.stdout))
            shutil.rmtree(cache)
    ratios = [ours / curl for ours, curl in zip(rates["ours"], rates["curl"], strict=True)]
    shown = {name: [round(rate) for rate in values] for name, values in rates.items()}
    print(json.dumps({"bytes": size, "MB/s": shown, "ratio": round(statistics.median(ratios), 3)}))
    return 0


def run_list(count: int, runs: int) -> int:
    """Milliseconds of `localllm list` with half of the models in the home and half pulled."""
    with serving() as server, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        home = Home(folder / "home")
        home.models.mkdir(parents=True)
        for i in range(count // 2):
            shutil.copy(ROOT / "models" / "guide.gguf", home.models / f"model-{i}.gguf")
        subject = Subject(server, folder, 0, random.Random(0))
        subject.start().communicate()
        registry = Registry(home)
        (model,) = registry.pulled()
        for i in range(count - count // 2 - 1):
            registry.add_pulled(type(model)(**{**vars(model), "label": f"Q{i}"}))
        times = []
        for _ in range(runs + 1):
            started = time.perf_counter()
            done = subprocess.run(
                [Path(sys.executable).with_name("localllm"), "list"], env=subject.environment, check=True,
                capture_output=True, text=True,
            )  # fmt: skip
            times.append((time.perf_counter() - started) * 1000)
        assert sum(word in done.stdout for word in (f"model-{count // 2 - 1}", "Q1")) == 2
    first, *rest = times
    print(json.dumps({"models": count, "first_ms": round(first), "median_ms": round(statistics.median(rest))}))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=0, metavar="N")
    parser.add_argument("--corruptions", type=int, default=0, metavar="N")
    parser.add_argument("--rate", type=Path, metavar="FILE")
    parser.add_argument("--list", type=int, default=0, metavar="N")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    code = 0
    if arguments.faults:
        code |= run_faults(arguments.faults, arguments.seed)
    if arguments.corruptions:
        code |= run_corruptions(arguments.corruptions, arguments.seed)
    if arguments.rate:
        code |= run_rate(arguments.rate, arguments.runs)
    if arguments.list:
        code |= run_list(arguments.list, arguments.runs)
    return code


if __name__ == "__main__":
    sys.exit(main())
