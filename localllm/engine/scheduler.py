"""Continuous batching: which tokens of which requests go into the next batch.

Each step decodes one token of every answer on its way, then a chunk of prompts; requests join and leave at any step. A
prompt begins with what its slot, or another one, already holds of it, and waits for a prefix that another
request is just computing. llama.cpp attaches adapters to the whole context, so only requests with the same ones run
together. Nothing native is called but through a `Backend`.

Within a batch llama.cpp sums floating-point numbers in another order than for a sequence alone, so that greedy answers
in company can part from those alone where two tokens are about equally likely: of 36 answers of the built-in model, of
up to 48 tokens and in 8 slots, 3 did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice

from localllm.engine.backend import Backend, Group, Part, Status, Vocabulary
from localllm.engine.base import Failed, Prefilled, StepEvent
from localllm.engine.chunking import cut
from localllm.engine.lookup import MOST_ACTIVE
from localllm.engine.running import Running
from localllm.engine.slots import Placement, Slot, place
from localllm.engine.turns import Turn, in_order, neighbours
from localllm.errors import LocalLLMError
from localllm.types import FinishReason

PATIENCE = 32
"""Requests with the adapters in use that may overtake one that waits for others."""
_HINT = "Try a smaller --ctx, or start the program again."


class Scheduler:
    """Requests in slots, and a queue. One thread at a time, except `cancel`."""

    def __init__(
        self,
        backend: Backend,
        vocab: Vocabulary,
        *,
        n_slots: int,
        n_ctx: int,
        n_batch: int,
        load_seconds: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._backend, self._vocab, self._clock = backend, vocab, clock
        self._n_ctx, self._n_batch, self._load_seconds = n_ctx, n_batch, load_seconds
        self.slots = [Slot(number) for number in range(n_slots)]
        self._queue: list[Running] = []
        self._active: list[Running] = []  # in the order in which they were admitted
        self._known: set[int] = set()
        self._cancelled: set[int] = set()
        self._computing: frozenset[int] = frozenset()  # requests in the batch that runs now
        self.group: Group = ()
        self._overtaken = 0
        self._steps = 0
        self.computing_seconds = 0.0
        """Spent in the backend's batches, which is all but scheduling and choosing tokens."""

    @property
    def busy(self) -> bool:
        return bool(self._queue or self._active)

    @property
    def n_requests(self) -> int:
        return len(self._queue) + len(self._active)

    def submit(self, running: Running) -> None:
        self._known.add(running.request_id)
        self._queue.append(running)

    def cancel(self, request_id: int) -> None:
        """Stop a request at the next step, or within the present one; safe from any thread."""
        if request_id in self._known:
            self._cancelled.add(request_id)
        if request_id in self._computing:
            self._backend.interrupt(True)

    def interrupt(self) -> None:
        """End the batch that is being computed; safe from any thread."""
        self._backend.interrupt(True)

    def forget(self) -> None:
        """Hold nothing any more; only while no request is there."""
        for slot in self.slots:
            self._backend.trim(slot.number, 0)
            slot.tokens, slot.held = [], 0

    def close(self) -> None:
        for running in [*self._queue, *self._active]:
            self._leave(running)

    def step(self) -> list[StepEvent]:
        """A batch of answers and one or some of prompts. An empty list means that no request is left."""
        self._steps += 1
        events = self._end_stopped()
        events += self._admit()
        events += self._answer()
        events += self._read()
        return events

    # Joining

    def _admit(self) -> list[StepEvent]:
        """Give requests that can begin a slot, in their order as far as adapters and prefixes allow."""
        events: list[StepEvent] = []
        passed = False
        for running in list(islice(self._queue, 4 * len(self.slots))):
            if len(self._active) == len(self.slots):
                break
            if running.group != self.group:
                if self._active:
                    if self._overtaken >= PATIENCE:
                        break
                    passed = True
                    continue
                try:
                    self.switch(running.group)
                except LocalLLMError as error:
                    events += self._fail(running, error.message, error.hint)
                    continue
                passed = False
            placement = place(self.slots, running.tokens, running.group, can_trim=self._backend.can_trim)
            if placement is not None:
                self._start(running, placement)
                self._overtaken += passed
        return events

    def switch(self, group: Group) -> None:
        """Attach adapters; only while nothing is being answered. Raises AdapterError."""
        self._backend.attach(group)
        self.group, self._overtaken = group, 0

    def _start(self, running: Running, placement: Placement) -> None:
        slot, keep = placement.slot, placement.keep
        if placement.source is not None:
            self._backend.copy(placement.source.number, slot.number, keep)
        elif not self._backend.trim(slot.number, keep):
            keep = 0
        slot.tokens, slot.held, slot.group, slot.running = running.tokens, keep, running.group, running
        running.slot, running.cached, running.started = slot, keep, self._clock()
        self._queue.remove(running)
        self._active.append(running)

    # One batch

    def _answer(self) -> list[StepEvent]:
        """One token of every answer on its way; drafts as well where that pays."""
        answering = [running for running in self._active if running.waiting == 1]
        drafting = len(self._active) == len(answering) <= MOST_ACTIVE
        turns = [Turn(running, 1, self._draft(running) if drafting else ()) for running in answering]
        return self._decode(in_order(turns)) if turns else []

    def _read(self) -> list[StepEvent]:
        """A batch of prompts, oldest first, and as many more as can be read to their ends in the room that is left."""
        events: list[StepEvent] = []
        room, most = self._n_batch, self._n_ctx
        had: set[int] = set()
        while reading := [
            running
            for running in self._active
            if 1 < running.waiting <= most and running.request_id not in had and room
        ]:
            group = neighbours(reading)
            n, each = cut([running.waiting for running in group], room)
            had |= {running.request_id for running in group[:n]}
            events += self._decode(in_order([Turn(running, each) for running in group[:n]]))
            room -= n * each
            most = room
        return events

    def _draft(self, running: Running) -> Sequence[int]:
        """Tokens that may come next, to be checked in the same batch."""
        if running.lookup is None:
            return ()
        most = self._n_ctx - len(running.tokens)
        if (limit := running.request.sampling.max_tokens) is not None:
            most = min(most, limit - running.n_output - 1)
        return running.lookup.draft(most)

    def _decode(self, turns: Sequence[Turn]) -> list[StepEvent]:
        """Compute one batch and take what it gave. What fails is tried again alone, so that only one fails."""
        parts = [turn.part() for turn in turns]
        status = self._compute(turns, parts)
        if status == "done":
            return self._advance(turns, parts)
        for turn, part in zip(turns, parts, strict=True):
            self._look_again(turn.running, part)
        if status == "aborted":
            return self._end_stopped()
        if len(turns) > 1:
            alone = (Turn(turn.running, min(turn.count, turn.running.waiting)) for turn in turns)
            return [event for turn in alone for event in self._decode([turn])]
        why = "its context is full" if status == "full" else "it failed"
        return self._fail(turns[0].running, f"llama.cpp could not decode ({why}).", _HINT)

    def _compute(self, turns: Sequence[Turn], parts: Sequence[Part]) -> Status:
        """The backend's batch, which `cancel` may interrupt."""
        self._backend.interrupt(False)
        self._computing = frozenset(turn.running.request_id for turn in turns)
        if self._cancelled & self._computing:  # a cancel that came before the line above did not interrupt
            self._backend.interrupt(True)
        started = self._clock()
        try:
            return self._backend.decode(parts)
        except BaseException:
            for turn in turns:
                self._leave(turn.running)
            raise
        finally:
            self._computing = frozenset()
            self.computing_seconds += self._clock() - started

    def _advance(self, turns: Sequence[Turn], parts: Sequence[Part]) -> list[StepEvent]:
        """Take the next token of each answer that has one."""
        events: list[StepEvent] = []
        end = 0  # index in the batch after the part
        for turn, part in zip(turns, parts, strict=True):
            running, end = turn.running, end + len(part.tokens)
            running.place.held += turn.count
            if running.n_output == 0:
                n_prompt = len(running.tokens)
                events.append(Prefilled(running.request_id, min(running.place.held, n_prompt), n_prompt))
            if not part.rows:
                continue
            try:
                events += self._take(running, turn.draft, end - part.rows)
            except LocalLLMError as error:
                events += self._fail(running, error.message, error.hint)
            except Exception as error:  # the others' tokens of this batch must not be lost
                events += self._fail(running, f"The answer failed: {error!r}.", "Please report this.")
        return events

    def _take(self, running: Running, draft: Sequence[int], row: int) -> list[StepEvent]:
        """The next token, and those after it for which the draft was right."""
        slot, accepted = running.place, 0
        reason: FinishReason | None = None
        for guess in (*draft, None):
            token = self._backend.choose(running.sampler, row + accepted)
            running.first_token = running.first_token or self._clock()
            reason = running.take(token, self._vocab, self._n_ctx)
            if reason is not None or token != guess:
                break
            accepted += 1
            slot.held += 1
        if draft:
            assert running.lookup is not None
            running.lookup.learn(len(draft), accepted)
            self._backend.trim(slot.number, slot.held)
        return [*running.delta()] if reason is None else self._finish(running, reason)

    def _look_again(self, running: Running, part: Part) -> None:
        """After a batch that was not done: micro-batches before the failure stay in the context.

        A token whose logits were wanted and lost is decoded again.
        """
        slot = running.place
        slot.held = max(0, min(self._backend.length(slot.number), part.start + len(part.tokens)))
        keep = min(slot.held, part.start + len(part.tokens) - part.rows)
        if not self._backend.trim(slot.number, keep):
            keep = 0
        slot.held = keep

    # Leaving

    def _end_stopped(self) -> list[StepEvent]:
        now = self._clock()
        events: list[StepEvent] = []
        for running in [*self._active, *self._queue]:
            if running.request_id in self._cancelled:
                events += self._finish(running, "cancelled")
            elif running.late(now):
                events += self._finish(running, "deadline")
        return events

    def _finish(self, running: Running, reason: FinishReason) -> list[StepEvent]:
        events = running.finish(reason, self._clock(), self._load_seconds)
        self._leave(running)
        return [*events]

    def _fail(self, running: Running, message: str, hint: str) -> list[StepEvent]:
        events: list[StepEvent] = [*running.delta(), Failed(running.request_id, message, hint)]
        self._leave(running)
        return events

    def _leave(self, running: Running) -> None:
        running.sampler.close()
        self._known.discard(running.request_id)
        self._cancelled.discard(running.request_id)
        if running in self._queue:
            self._queue.remove(running)
        if running in self._active:
            self._active.remove(running)
            slot = running.place
            slot.running, slot.last_used = None, self._steps
