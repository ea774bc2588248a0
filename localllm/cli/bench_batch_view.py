"""What `localllm bench batch` shows: each run as it ends, and a table of medians."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from localllm.cli.output import say
from localllm.sanitize import sanitize_line
from localllm.tasks.bench_batch import BatchMedians, BatchRun
from localllm.tasks.bench_import import Absent


class BatchTable:
    """Collects the events of a bench."""

    def __init__(self) -> None:
        self._runs: list[BatchRun] = []
        self._medians: list[BatchMedians] = []
        self._absent: list[Absent] = []

    def take(self, event: BatchRun | BatchMedians | Absent) -> None:
        if isinstance(event, Absent):
            self._absent.append(event)
            say(sanitize_line(f"{event.program}: not measured: {event.reason}. {event.hint}."))
        elif isinstance(event, BatchMedians):
            self._medians.append(event)
        else:
            self._runs.append(event)
            tokens = f"{event.prompt_tokens} + {event.output_tokens} tokens"
            say(f"{event.work}: {event.program}: {event.rate:.1f} {event.unit} ({event.seconds:.1f} s, {tokens})")

    def as_json(self) -> dict[str, Any]:
        return {
            "measured": [asdict(run) for run in self._runs],
            "medians": [asdict(row) for row in self._medians],
            "absent": [asdict(row) for row in self._absent],
        }

    def print(self) -> None:
        print(f"{'WORK':12} {'PROGRAM':36} {'RUNS':>4} {'RATE':>8} {'':13} {'RATIO':>7}")
        for row in self._medians:
            notes = []
            if row.overhead is not None:
                notes.append(f"{row.overhead:.2%} not computing")
            if row.accepted is not None:
                notes.append(f"{row.accepted:.0%} of drafted tokens right")
            line = f"{row.work:12} {row.program:36} {row.runs:4} {row.rate:8.1f} {row.unit:13} {row.ratio:6.2f}x"
            print(f"{line}  {', '.join(notes)}".rstrip())
        print("\nRATE: median of the runs; RATIO: the first program over this one, the median of the rounds")
        print("exact: float32 keys and values without flash attention, as summarize does it unless told otherwise")
