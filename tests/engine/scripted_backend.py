"""A backend without a model: what each slot holds is a list, and the next token a function of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from localllm.engine.backend import Group, Part, Status
from localllm.engine.base import Failed, Finished, Request, StepEvent, TextDelta
from localllm.engine.running import Running
from localllm.engine.scheduler import Scheduler
from localllm.errors import AdapterError
from localllm.types import Sampling

END = 2


def following(tokens: Sequence[int], group: Group = ()) -> int:
    """The token that the model continues with: another one wherever any token or adapter differs."""
    return 3 + hash((*tokens, group)) % 1000


@dataclass
class ScriptedBackend:
    """Checks what the scheduler asks for, and records it."""

    n_slots: int
    can_trim: bool = True
    batches: list[list[Part]] = field(default_factory=list)
    copies: list[tuple[int, int, int]] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    statuses: dict[int, Status] = field(default_factory=dict)
    """What a batch that holds this token comes to."""
    refused: Group = (("refused", 1.0),)
    interrupted: bool = False
    model: Callable[[Sequence[int], Group], int] = following
    held: list[list[int]] = field(default_factory=list)
    _rows: dict[int, tuple[int, ...]] = field(default_factory=dict)
    _group: Group = ()

    def __post_init__(self) -> None:
        self.held = [[] for _ in range(self.n_slots)]

    def decode(self, parts: Sequence[Part]) -> Status:
        self.batches.append(list(parts))
        self._rows = {}
        assert [p.slot for p in parts] == sorted({p.slot for p in parts})
        status = next((s for token, s in self.statuses.items() if any(token in p.tokens for p in parts)), "done")
        if status != "done":
            return status
        at = 0
        for part in parts:
            held = self.held[part.slot]
            assert part.start == len(held), "positions must follow what is held"
            for i, token in enumerate(part.tokens):
                held.append(token)
                if i >= len(part.tokens) - part.rows:
                    self._rows[at] = tuple(held)
                at += 1
        return "done"

    def choose(self, sampler: object, row: int) -> int:
        return self.model(self._rows[row], self._group)

    def length(self, slot: int) -> int:
        return len(self.held[slot])

    def trim(self, slot: int, keep: int) -> bool:
        fine = self.can_trim or keep in (0, len(self.held[slot]))
        del self.held[slot][keep if fine else 0 :]
        return fine

    def copy(self, source: int, target: int, keep: int) -> None:
        assert self.can_trim
        self.copies.append((source, target, keep))
        self.held[target] = self.held[source][:keep]

    def attach(self, group: Group) -> None:
        if group == self.refused:
            raise AdapterError("It does not fit.", "Take another.")
        self.groups.append(group)
        self._group = group

    def interrupt(self, on: bool) -> None:
        self.interrupted = on

    def computed(self) -> int:
        """Tokens of all batches."""
        return sum(len(part.tokens) for batch in self.batches for part in batch)


class ScriptedVocabulary:
    """Every token is a character; END ends an answer."""

    def piece(self, token: int) -> bytes:
        return chr(token).encode()

    def is_end(self, token: int) -> bool:
        return token == END


class NoSampler:
    """Counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@dataclass
class Room:
    """A scheduler over a scripted backend, and what became of its requests."""

    n_slots: int = 4
    n_ctx: int = 200
    n_batch: int = 64
    can_trim: bool = True
    now: float = 0.0
    events: list[StepEvent] = field(default_factory=list)
    samplers: list[NoSampler] = field(default_factory=list)
    backend: ScriptedBackend = field(init=False)
    scheduler: Scheduler = field(init=False)

    def __post_init__(self) -> None:
        self.backend = ScriptedBackend(self.n_slots, self.can_trim)
        self.scheduler = Scheduler(
            self.backend,
            ScriptedVocabulary(),
            n_slots=self.n_slots,
            n_ctx=self.n_ctx,
            n_batch=self.n_batch,
            clock=lambda: self.now,
        )

    def submit(
        self,
        prompt: Sequence[int],
        max_tokens: int = 5,
        group: Group = (),
        timeout: float | None = None,
        drafts: bool = False,
    ) -> int:
        request = Request(tuple(prompt), Sampling(max_tokens=max_tokens), timeout=timeout)
        self.samplers.append(NoSampler())
        number = len(self.samplers)
        self.scheduler.submit(Running(number, request, self.samplers[-1], group, self.now, drafts))
        return number

    def step(self) -> list[StepEvent]:
        new = self.scheduler.step()
        self.events += new
        return new

    def run(self) -> None:
        """Steps until nothing is left."""
        for _ in range(10_000):
            if not self.step():
                return
        raise AssertionError("it does not end")

    def tokens(self, number: int) -> list[int]:
        return [t for e in self.events if isinstance(e, TextDelta) and e.request_id == number for t in e.tokens]

    def end(self, number: int) -> Finished | Failed:
        (last,) = (e for e in self.events if isinstance(e, Finished | Failed) and e.request_id == number)
        return last

    def order(self) -> list[int]:
        """Requests in the order in which they ended."""
        return [e.request_id for e in self.events if isinstance(e, Finished | Failed)]


def alone(prompt: Sequence[int], n: int = 5, group: Group = ()) -> list[int]:
    """The first `n` tokens of the answer."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(following(tokens, group))
    return tokens[len(prompt) :]
