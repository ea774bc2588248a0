"""Several schedulers over one model, each with a context and a thread of its own.

Threads that compute one batch together wait for each other after every operation of it, of which there are about a
thousand. Where there are requests enough, a batch for each thread makes them wait for nobody: with 135 million weights
on two cores, prompts are then read 1.16 times as fast, and 7 answers at a time are written 1.43 times as fast. A lane
that is alone with work takes all threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from localllm.engine.backend import Group
from localllm.engine.base import StepEvent
from localllm.engine.running import Running
from localllm.engine.scheduler import Scheduler


@dataclass(eq=False)
class Lane:
    """A scheduler, and how its context is told the number of its threads."""

    scheduler: Scheduler
    use_threads: Callable[[int], None]
    flight: Future[list[StepEvent]] | None = None
    """The step that is being computed."""

    @property
    def load(self) -> int:
        """Requests that it has; only between its steps is the number exact."""
        return self.scheduler.n_requests


class Lanes:
    """Stands where a `Scheduler` does. One thread at a time, except `cancel`."""

    def __init__(self, lanes: Sequence[Lane], *, cores: int, alone: int) -> None:
        """`cores` is shared by lanes that work at once; `alone` are the threads of one that has all the work."""
        self._lanes = list(lanes)
        self._shared, self._alone = max(1, cores // len(lanes)), alone
        self._queue: list[Running] = []
        self._handing_over = threading.Lock()
        self._cancelled: set[int] = set()  # requests that no lane has yet
        self._pool = ThreadPoolExecutor(len(self._lanes), "lane")
        self._clock = time.perf_counter

    @property
    def busy(self) -> bool:
        return bool(self._queue) or any(lane.flight or lane.scheduler.busy for lane in self._lanes)

    @property
    def computing_seconds(self) -> float:
        """The mean of the lanes, which compute at the same time."""
        return sum(lane.scheduler.computing_seconds for lane in self._lanes) / len(self._lanes)

    def submit(self, running: Running) -> None:
        self._queue.append(running)

    def cancel(self, request_id: int) -> None:
        """Stop a request at the next step, or within the present one; safe from any thread."""
        with self._handing_over:
            if any(running.request_id == request_id for running in self._queue):
                self._cancelled.add(request_id)
                return
        for lane in self._lanes:
            lane.scheduler.cancel(request_id)

    def forget(self) -> None:
        """Hold nothing any more; only while no request is there."""
        for lane in self._lanes:
            lane.scheduler.forget()

    def switch(self, group: Group) -> None:
        """Attach adapters; only while nothing is being answered. Raises AdapterError."""
        for lane in self._lanes:
            lane.scheduler.switch(group)

    def step(self) -> list[StepEvent]:
        """What the lanes have done since; they go on meanwhile. An empty list means that no request is left."""
        while True:
            self._hand_over()
            flights = self._start()
            if not flights:
                return []
            wait(flights, return_when=FIRST_COMPLETED)
            events = self._collect()
            if events:
                self._hand_over()
                self._start()
                return events

    def close(self) -> None:
        for lane in self._lanes:
            if lane.flight is not None:
                lane.scheduler.interrupt()
        self._pool.shutdown(wait=True)
        for running in self._queue:
            running.sampler.close()
        self._queue.clear()
        for lane in self._lanes:
            lane.scheduler.close()

    def _hand_over(self) -> None:
        """Requests in their order, each to the lane with the least to do; it waits for one that is at a step."""
        with self._handing_over:
            self._hand_over_ended()
            for running in list(self._queue):
                lane = min(self._lanes, key=lambda lane: (_other_adapters(lane, running), lane.load))
                if lane.flight is not None or lane.load >= len(lane.scheduler.slots):
                    return
                self._give(running, lane)

    def _hand_over_ended(self) -> None:
        """Those that were cancelled or are late while they waited: a scheduler reports them at its next step."""
        free = next((lane for lane in self._lanes if lane.flight is None), None)
        now = self._clock()
        for running in list(self._queue):
            if free is not None and (running.request_id in self._cancelled or running.late(now)):
                self._give(running, free)

    def _give(self, running: Running, lane: Lane) -> None:
        self._queue.remove(running)
        lane.scheduler.submit(running)
        if running.request_id in self._cancelled:
            self._cancelled.discard(running.request_id)
            lane.scheduler.cancel(running.request_id)

    def _start(self) -> list[Future[list[StepEvent]]]:
        """Let every lane that has requests make a step; all steps that are on their way."""
        working = [lane for lane in self._lanes if lane.flight is not None or lane.scheduler.busy]
        for lane in working:
            if lane.flight is None:
                lane.use_threads(self._alone if len(working) == 1 else self._shared)
                lane.flight = self._pool.submit(lane.scheduler.step)
        return [lane.flight for lane in working if lane.flight is not None]

    def _collect(self) -> list[StepEvent]:
        """The events of steps that are done; what one of them raised, once the others' events have been taken."""
        events: list[StepEvent] = []
        for lane in self._lanes:
            if lane.flight is None or not lane.flight.done():
                continue
            if lane.flight.exception() is not None and events:
                break  # next time
            flight, lane.flight = lane.flight, None
            events += flight.result()
        return events


def _other_adapters(lane: Lane, running: Running) -> bool:
    return lane.load > 0 and lane.scheduler.group != running.group
