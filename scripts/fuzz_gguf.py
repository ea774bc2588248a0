#!/usr/bin/env python3
"""Damage valid GGUF files in a million ways and see that nothing comes of it but a refusal.

Each case is given to the header reader, which may answer with an error of ours or a header, within a second and with no
more than 64 MiB beyond the file; some of those that pass are given to llama.cpp in a child, which none may bring down.

    python scripts/fuzz_gguf.py                       # a million cases, 2,000 of the passing ones through llama.cpp
    python scripts/fuzz_gguf.py --cases 20000 --seed 7 --load 20000 --keep bad tests/oracle/*.gguf

The same seed gives the same cases. Ends with 1 if anything was violated.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from fuzz import watch
from fuzz.mutations import Mutator
from fuzz.native import Outcome, load_all, scratch
from fuzz.seeds import write_seeds


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000, help="damaged files (default 1,000,000)")
    parser.add_argument("--seed", type=int, default=0, help="which ones (default 0)")
    parser.add_argument("--load", type=int, default=2000, help="passing files given to llama.cpp (default 2000)")
    parser.add_argument("files", type=Path, nargs="*", help="valid models to be damaged besides our tiny ones")
    parser.add_argument("--keep", type=Path, help="folder for the files that llama.cpp did not survive")
    return parser.parse_args()


def read(mutator: Mutator, cases: int, folder: Path) -> watch.Report:
    """Give the cases to the header reader and say what came of it."""
    started = time.perf_counter()
    report = watch.read_all(mutator, range(cases), folder)
    print(f"cases            {report.cases}")
    print(f"refused          {report.refused}")
    print(f"passed           {len(report.passed)} different ones")
    print(f"slowest case     {report.slowest * 1000:.1f} ms of processor time (number {report.slowest_number})")
    print(f"memory           {report.memory / (1 << 20):.1f} MiB more at the highest")
    tell(report.violations, started)
    return report


def load(mutator: Mutator, numbers: list[int], base: Path, keep: Path | None) -> Outcome:
    """Give cases that passed to llama.cpp and say what came of it."""
    started = time.perf_counter()
    outcome = load_all(((number, mutator.case(number)) for number in numbers), base, keep)
    print(f"native loads     {outcome.loads}")
    print(f"native refusals  {sum(outcome.refusals.values())} in {len(outcome.refusals)} wordings")
    print(f"native failures  {len(outcome.failures)} (aborts, other signals, hangs, errors that are not ours)")
    tell(outcome.failures, started)
    return outcome


def tell(violations: list[tuple[int, str]], started: float) -> None:
    """The first of what must not be, and the time it all took."""
    for number, what in violations[:20]:
        print(f"VIOLATED         case {number}: {what}")
    print(f"seconds          {time.perf_counter() - started:.0f}", flush=True)


def main() -> int:
    """Read, then load; 1 if anything was violated."""
    args = arguments()
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch()) as name:
        seeds = write_seeds(Path(name))
        files = [*seeds.values(), *args.files]
        mutator = Mutator([path.read_bytes() for path in files], args.seed)
        print(f"seed             {args.seed}, {len(files)} valid files")
        report = read(mutator, args.cases, Path(name))
        chosen = random.Random(args.seed).sample(report.passed, min(args.load, len(report.passed)))
        outcome = load(mutator, chosen, seeds["llama"], args.keep)
    return 1 if report.violations or outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
