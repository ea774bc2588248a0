"""How fast many prompts are answered side by side: our engine, and beside it llama.cpp's own programs.

Every program gets the same prompts in the model's chat template, takes the likeliest token each time, and gives answers
of the same length. Loading a model does not count; turning texts into tokens does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from localllm.engine.base import Engine, Failed, Finished, Request, stream_many
from localllm.engine.capacity import batch_slots
from localllm.engine.llama import LlamaEngine
from localllm.engine.threads import default_threads
from localllm.engine.worker import WorkerEngine
from localllm.errors import EngineError, UsageError
from localllm.tasks.bench_import import Absent
from localllm.tasks.bench_peers import Answered, Peers
from localllm.tasks.bench_work import Sizes, Work, WorkName, make_work
from localllm.types import Message, Sampling, Usage
from localllm.weights.gguf import read_header

Kind = Literal["ours", "inside", "exact", "server", "python", "bound"]
KINDS: tuple[Kind, ...] = ("ours", "inside", "exact", "server", "python", "bound")


@dataclass(frozen=True)
class BatchRun:
    """One program's answers to the prompts of one kind of work."""

    work: WorkName
    program: str
    seconds: float
    requests: int
    prompt_tokens: int
    cached_tokens: int
    """Of ours, those of the prompts that were computed for another one."""
    output_tokens: int
    rate: float
    unit: str
    """What the rate counts: documents a minute, or tokens of one answer after the other a second."""
    overhead: float | None = None
    """Of ours in this process: the share of the time in which llama.cpp computes nothing."""
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True)
class BatchMedians:
    """A program's runs. `ratio` is ours over theirs: the median of the rounds, in each of which both ran."""

    work: WorkName
    program: str
    runs: int
    rate: float
    unit: str
    ratio: float
    overhead: float | None
    accepted: float | None
    """Share of the drafted tokens."""


@dataclass(frozen=True)
class Settings:
    """What every program runs with."""

    runs: int = 3
    slots: int | None = None
    """Of ours; None takes as many as memory and cores allow, as the commands do."""
    peer_slots: int = 8
    threads: int | None = None
    kinds: tuple[Kind, ...] = KINDS


def bench_batch(
    path: Path,
    text: Path,
    works: Sequence[WorkName],
    sizes: Sizes,
    settings: Settings,
    *,
    prompts: Path | None = None,
    binaries: Path | None = None,
    interpreter: Path | None = None,
) -> Iterator[BatchRun | BatchMedians | Absent]:
    """Every run as it ends, the programs in turn and every other round backwards; after all rounds each one's medians.

    `text` is cut into documents, `prompts` are those of "lookup". `binaries` holds llama-server and
    llama-batched-bench; `interpreter` has llama-cpp-python, this one by default. Raises ModelError, TemplateError,
    DataError, UsageError, and EngineError where our own engine fails.
    """
    if settings.runs < 1 or settings.peer_slots < 1:
        raise UsageError("There must be at least 1 run and 1 slot.")
    bench = _Bench(path, settings, Peers(path, binaries, interpreter))
    absent: set[str] = set()
    for work in make_work(path, works, text, sizes, prompts):
        rounds: list[dict[str, BatchRun]] = []
        programs = bench.programs(work)
        for number in range(settings.runs):
            rounds.append({})
            # Machines become faster or slower with time: no program is always the later one.
            for program, measure in programs[:: -1 if number % 2 else 1]:
                if program in absent:
                    continue
                result = measure()
                if isinstance(result, Absent):
                    absent.add(program)
                else:
                    rounds[-1][program] = result
                yield result
        yield from _medians([program for program, _ in programs], rounds)


class _Bench:
    """The programs for each kind of work, ours first: the others are compared with that one."""

    def __init__(self, path: Path, settings: Settings, peers: Peers) -> None:
        self._path, self._settings, self._peers = path, settings, peers
        self._file = read_header(path)
        self._threads = settings.threads or default_threads(self._file.size)

    def programs(self, work: Work) -> list[tuple[str, Callable[[], BatchRun | Absent]]]:
        slots = 1 if work.unit == "tokens/s" else self._settings.slots or batch_slots(self._file, work.n_ctx)
        chosen = self._settings.kinds
        every = {
            "chat": self._chat,
            "lookup": self._lookup,
            "documents": self._documents,
            "instruction": self._instruction,
        }[work.name](work, slots)
        return [
            (program, lambda program=program, run=run: run(program))  # type: ignore[misc]
            for kind, program, run in every
            if kind in chosen
        ]

    def _documents(self, work: Work, slots: int) -> list[_Entry]:
        return [
            *self._ours(work, slots),
            ("exact", f"localllm, exact, {slots} slots", lambda p: self._answer(p, work, slots, exact=True)),
            ("server", self._server_name(), lambda p: self._serve(p, work)),
            ("python", "llama-cpp-python, one by one", lambda p: self._one_by_one(p, work)),
            ("bound", f"bound of llama-batched-bench, {slots}", lambda p: self._bound(p, work, slots)),
        ]

    def _instruction(self, work: Work, slots: int) -> list[_Entry]:
        name = self._server_name()
        return [
            *self._ours(work, slots),
            ("server", f"{name}, cache_prompt off", lambda p: self._serve(p, work, cache_prompt=False)),
            ("server", f"{name}, cache_prompt on", lambda p: self._serve(p, work, cache_prompt=True)),
        ]

    def _chat(self, work: Work, slots: int) -> list[_Entry]:
        return [
            *self._ours(work, slots),
            ("bound", "llama-batched-bench, batch 1", lambda p: self._bound(p, work, 1)),
        ]

    def _lookup(self, work: Work, slots: int) -> list[_Entry]:
        return [
            ("ours", "localllm, drafting", lambda p: self._answer(p, work, slots, lookup=True)),
            ("ours", "localllm", lambda p: self._answer(p, work, slots)),
        ]

    def _ours(self, work: Work, slots: int) -> list[_Entry]:
        name = f"localllm, {slots} slots" if slots > 1 else "localllm"
        return [
            ("ours", name, lambda p: self._answer(p, work, slots)),
            ("inside", f"{name}, in one process", lambda p: self._answer(p, work, slots, worker=False)),
        ]

    def _server_name(self) -> str:
        return f"llama-server, {self._settings.peer_slots} slots"

    def _answer(
        self, program: str, work: Work, slots: int, *, worker: bool = True, exact: bool = False, lookup: bool = False
    ) -> BatchRun:
        """Ours. Raises EngineError where a request fails."""
        opener: Callable[..., Engine] = WorkerEngine.open if worker else LlamaEngine.open
        engine = opener(self._path, work.n_ctx, self._threads, n_slots=slots, exact=exact)
        try:
            started = time.perf_counter()
            usages = _answers(engine, work, lookup=lookup)
            seconds = time.perf_counter() - started
            overhead = 1 - engine.computing_seconds / seconds if isinstance(engine, LlamaEngine) else None
        finally:
            engine.close()
        run = _run(work, program, Answered(seconds, *_totals(usages)))
        if work.unit == "tokens/s":
            pairs = [(usage.output_tokens - 1, usage.decode_seconds) for usage in usages]
            run = replace(run, rate=sum(n for n, _ in pairs) / sum(seconds for _, seconds in pairs))
        drafted, accepted = (sum(getattr(u, f"{name}_tokens") for u in usages) for name in ("drafted", "accepted"))
        cached = sum(usage.cached_tokens for usage in usages)
        return replace(run, overhead=overhead, cached_tokens=cached, drafted_tokens=drafted, accepted_tokens=accepted)

    def _serve(self, program: str, work: Work, **fields: bool) -> BatchRun | Absent:
        answered = self._peers.server(program, work, self._settings.peer_slots, self._threads, fields)
        return answered if isinstance(answered, Absent) else _run(work, program, answered)

    def _one_by_one(self, program: str, work: Work) -> BatchRun | Absent:
        answered = self._peers.python(program, work, self._threads)
        return answered if isinstance(answered, Absent) else _run(work, program, answered)

    def _bound(self, program: str, work: Work, slots: int) -> BatchRun | Absent:
        """The prompts and answers at the rates that llama.cpp's own benchmark reaches with batches alone."""
        rates = self._peers.batched_bench(program, work, slots, self._threads)
        if isinstance(rates, Absent):
            return rates
        prompt, output = sum(work.tokens), len(work.tokens) * work.max_tokens
        run = _run(work, program, Answered(prompt / rates.prefill + output / rates.decode, prompt, output))
        return run if work.name != "chat" else replace(run, rate=rates.decode)


_Entry = tuple[Kind, str, Callable[[str], BatchRun | Absent]]


def _answers(engine: Engine, work: Work, *, lookup: bool) -> list[Usage]:
    sampling = Sampling(max_tokens=work.max_tokens, logit_bias=tuple((token, float("-inf")) for token in work.barred))
    requests = (
        Request(tuple(engine.encode_chat([Message("user", prompt)])), sampling, lookup=lookup)
        for prompt in work.prompts
    )
    usages = []
    for _, event in stream_many(engine, requests):
        if isinstance(event, Failed):
            raise EngineError(event.message, event.hint)
        if isinstance(event, Finished):
            usages.append(event.usage)
    return usages


def _totals(usages: Sequence[Usage]) -> tuple[int, int]:
    return sum(usage.prompt_tokens for usage in usages), sum(usage.output_tokens for usage in usages)


def _run(work: Work, program: str, answered: Answered) -> BatchRun:
    requests, seconds = len(work.prompts), answered.seconds
    rate = 60 * requests / seconds if work.unit == "documents/min" else answered.output_tokens / seconds
    return BatchRun(
        work.name, program, seconds, requests, answered.prompt_tokens, 0, answered.output_tokens, rate, work.unit
    )


def _medians(programs: Sequence[str], rounds: Sequence[dict[str, BatchRun]]) -> Iterator[BatchMedians]:
    """Of every program that was measured; the first one is what the others are compared with."""
    measured = [program for program in programs if program in rounds[0]]
    for program in measured:
        runs = [done[program] for done in rounds if program in done]
        ratios = [done[measured[0]].rate / done[program].rate for done in rounds if program in done]
        overheads = [run.overhead for run in runs if run.overhead is not None]
        drafted = sum(run.drafted_tokens for run in runs)
        yield BatchMedians(
            runs[0].work,
            program,
            len(runs),
            statistics.median(run.rate for run in runs),
            runs[0].unit,
            statistics.median(ratios),
            statistics.median(overheads) if overheads else None,
            sum(run.accepted_tokens for run in runs) / drafted if drafted else None,
        )
