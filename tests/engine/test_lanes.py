"""Several schedulers at once: who takes what, with how many threads, and that nothing is lost between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from localllm.engine.backend import Group, Part, Status
from localllm.engine.base import Failed, Finished, Request, StepEvent, TextDelta
from localllm.engine.lanes import Lane, Lanes
from localllm.engine.llama import LlamaEngine
from localllm.engine.running import Running
from localllm.engine.scheduler import Scheduler
from localllm.types import Sampling
from tests.engine.helpers import write_adapter
from tests.engine.scripted_backend import NoSampler, ScriptedBackend, ScriptedVocabulary, alone
from tests.engine.test_batching import SENTENCES, answers, by_itself, requests
from tests.engine.test_scheduler import ADAPTER, prompt

PATIENCE = 10.0


class Gated(ScriptedBackend):
    """Waits before each batch while its gate is closed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gate = threading.Event()
        self.gate.set()
        self.threads: list[int] = []
        self.breaks = False

    def decode(self, parts: Sequence[Part]) -> Status:
        assert self.gate.wait(PATIENCE)
        if self.breaks:
            self.breaks = False
            raise RuntimeError("broken")
        return super().decode(parts)

    def interrupt(self, on: bool) -> None:
        super().interrupt(on)
        if on:
            self.gate.set()


class Hall:
    """Two lanes of four slots each, on four cores."""

    def __init__(self) -> None:
        self.backends = [Gated(4), Gated(4)]
        schedulers = [
            Scheduler(backend, ScriptedVocabulary(), n_slots=4, n_ctx=200, n_batch=64) for backend in self.backends
        ]
        lanes = [Lane(one, backend.threads.append) for one, backend in zip(schedulers, self.backends, strict=True)]
        self.lanes = Lanes(lanes, cores=4, alone=3)
        self.samplers: list[NoSampler] = []
        self.events: list[StepEvent] = []

    def submit(self, tokens: Sequence[int], n: int = 5, group: Group = (), timeout: float | None = None) -> int:
        request = Request(tuple(tokens), Sampling(max_tokens=n), timeout=timeout)
        self.samplers.append(NoSampler())
        running = Running(len(self.samplers), request, self.samplers[-1], group, time.perf_counter())
        self.lanes.submit(running)
        return running.request_id

    def run(self) -> None:
        while new := self.lanes.step():
            self.events += new

    def tokens(self, number: int) -> list[int]:
        return [t for e in self.events if isinstance(e, TextDelta) and e.request_id == number for t in e.tokens]

    def end(self, number: int) -> Finished | Failed:
        (last,) = (e for e in self.events if isinstance(e, Finished | Failed) and e.request_id == number)
        return last

    def ending(self, number: int) -> str:
        end = self.end(number)
        return end.reason if isinstance(end, Finished) else end.message


@pytest.fixture
def hall() -> Iterator[Hall]:
    hall = Hall()
    yield hall
    hall.lanes.close()


def starts(backend: ScriptedBackend) -> int:
    """How many requests began there."""
    return sum(part.start == 0 for batch in backend.batches for part in batch)


def test_every_request_gets_its_own_answer_once_and_both_lanes_work(hall: Hall) -> None:
    lengths = [3, 9, 1, 6, 4, 12, 2, 5, 7, 3, 8, 2, 4]
    for i, n in enumerate(lengths):
        hall.submit(prompt(i, 5 + 7 * i), n)
    hall.run()
    for i, n in enumerate(lengths):
        assert hall.tokens(i + 1) == alone(prompt(i, 5 + 7 * i), n)
        assert hall.ending(i + 1) == "length"
    assert all(starts(backend) > 0 for backend in hall.backends)
    assert all(sampler.closed == 1 for sampler in hall.samplers)
    assert not hall.lanes.busy


def test_few_requests_are_shared_evenly_with_the_cores(hall: Hall) -> None:
    for i in range(4):
        hall.submit(prompt(i), 3)
    hall.run()
    assert [starts(backend) for backend in hall.backends] == [2, 2]
    assert {n for backend in hall.backends for n in backend.threads[:1]} == {2}


def test_a_lane_that_has_all_the_work_gets_the_threads_of_one_that_is_alone(hall: Hall) -> None:
    hall.submit(prompt(1), 3)
    hall.run()
    assert hall.backends[0].threads
    assert set(hall.backends[0].threads) == {3}
    assert not hall.backends[1].threads


def test_one_lane_goes_on_while_the_other_takes_long(hall: Hall) -> None:
    slow, fast = hall.submit(prompt(1), 4), hall.submit(prompt(2), 4)
    hall.backends[0].gate.clear()
    while not any(isinstance(e, Finished) and e.request_id == fast for e in hall.events):
        hall.events += hall.lanes.step()
    assert not hall.tokens(slow)
    hall.backends[0].gate.set()
    hall.run()
    assert hall.tokens(slow) == alone(prompt(1), 4)


def test_a_request_that_waits_can_be_cancelled_or_be_late(hall: Hall) -> None:
    first = [hall.submit(prompt(i), 4) for i in range(8)]
    cancelled, late, after = hall.submit(prompt(20)), hall.submit(prompt(21), timeout=0.0), hall.submit(prompt(22))
    hall.lanes.cancel(cancelled)
    hall.run()
    assert hall.ending(cancelled) == "cancelled"
    assert hall.ending(late) == "deadline"
    assert hall.tokens(after) == alone(prompt(22))
    assert [hall.ending(number) for number in first] == ["length"] * 8


def test_a_request_that_is_being_answered_can_be_cancelled_from_another_thread(hall: Hall) -> None:
    numbers = [hall.submit(prompt(i), 100) for i in range(4)]
    hall.events += hall.lanes.step()
    threads = [threading.Thread(target=hall.lanes.cancel, args=(number,)) for number in numbers[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hall.run()
    assert [hall.ending(number) for number in numbers] == ["cancelled"] * 3 + ["length"]
    assert hall.tokens(numbers[3]) == alone(prompt(3), 100)


def test_what_breaks_one_lane_is_raised_once_and_takes_nothing_from_the_other(hall: Hall) -> None:
    for i in range(4):
        hall.submit(prompt(i), 6)
    hall.backends[0].breaks = True
    raised = 0
    while hall.lanes.busy:
        try:
            hall.events += hall.lanes.step()
        except RuntimeError:
            raised += 1
    assert raised == 1
    assert [hall.tokens(number) for number in (2, 4)] == [alone(prompt(i), 6) for i in (1, 3)]


def test_requests_with_other_adapters_take_another_lane(hall: Hall) -> None:
    for i in range(6):
        hall.submit(prompt(i), 5, ADAPTER if i % 2 else ())
    hall.run()
    for i in range(6):
        assert hall.tokens(i + 1) == alone(prompt(i), 5, ADAPTER if i % 2 else ())
    assert sorted(len(backend.groups) for backend in hall.backends) == [0, 1]


def test_closing_ends_a_step_that_is_on_its_way() -> None:
    hall = Hall()
    for i in range(12):
        hall.submit(prompt(i), 50)
    hall.lanes.step()
    hall.backends[0].gate.clear()
    hall.lanes.close()
    assert all(sampler.closed >= 1 for sampler in hall.samplers)


def test_a_real_model_answers_in_lanes_as_alone(guide_path: Path) -> None:
    engine = LlamaEngine.open(guide_path, n_ctx=512, n_threads=2, n_slots=8, exact=True)
    one = LlamaEngine.open(guide_path, n_ctx=512, n_threads=1, exact=True)
    try:
        assert isinstance(engine._scheduler, Lanes)
        assert engine.info.n_slots == 8
        wanted = requests(one, [f"{a} {b}" for a in SENTENCES for b in SENTENCES[:2]])
        assert answers(engine, wanted)[0] == [by_itself(one, request) for request in wanted]
        rows = engine.logits(one.tokenize(SENTENCES[0]))
        assert (rows == one.logits(one.tokenize(SENTENCES[0]))).all()
    finally:
        engine.close()
        one.close()


def test_an_adapter_is_attached_in_every_lane(guide_path: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a.gguf", {"blk.0.ffn_down.weight": (256, 768)})
    engine = LlamaEngine.open(guide_path, n_ctx=512, n_threads=2, n_slots=8, exact=True)
    one = LlamaEngine.open(guide_path, n_ctx=512, n_threads=1, exact=True)
    try:
        wanted = requests(one, [f"{a} {b}" for a in SENTENCES for b in SENTENCES[:2]])
        plain = [by_itself(one, request) for request in wanted]
        assert answers(engine, wanted)[0] == plain
        for way in (engine, one):
            way.set_adapters([(adapter, 1.0)])
        changed = [by_itself(one, request) for request in wanted]
        assert sum(a != b for a, b in zip(changed, plain, strict=True)) > len(plain) // 2
        # Adapters of random numbers make every step nearly a tie: late digits decide some. One lane is half of them.
        together = answers(engine, wanted)[0]
        assert sum(a == b for a, b in zip(together, changed, strict=True)) >= 0.7 * len(changed)
        for way in (engine, one):
            way.set_adapters([])
        assert answers(engine, wanted)[0] == plain
    finally:
        engine.close()
        one.close()
