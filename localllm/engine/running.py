"""A request on its way: its tokens so far, its text, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localllm.engine.backend import Chooser, Group, Vocabulary
from localllm.engine.base import Event, Finished, Request, TextDelta
from localllm.engine.lookup import Lookup
from localllm.engine.output import OutputText
from localllm.types import FinishReason, Usage

if TYPE_CHECKING:
    from localllm.engine.slots import Slot


@dataclass(eq=False)
class Running:
    """A request that waits or is being answered."""

    request_id: int
    request: Request
    sampler: Chooser
    group: Group
    submitted: float
    drafts: bool = False
    """Whether tokens may be drafted: only where the sampler's choice depends on the logits alone."""
    tokens: list[int] = field(init=False)
    """The prompt and the answer so far."""
    output: OutputText = field(init=False)
    lookup: Lookup | None = field(init=False)
    slot: Slot | None = None
    cached: int = 0
    started: float = 0.0
    first_token: float = 0.0
    text: list[str] = field(default_factory=list)
    new: list[int] = field(default_factory=list)
    """Tokens since the last event."""

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)
        self.output = OutputText(self.request.sampling.stop)
        self.lookup = Lookup(self.tokens) if self.drafts else None

    @property
    def n_output(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def place(self) -> Slot:
        """The slot of a request that has one."""
        assert self.slot is not None
        return self.slot

    @property
    def waiting(self) -> int:
        """Tokens that the context has not seen yet: 1 when it is the turn of the next one of the answer."""
        return len(self.tokens) - self.place.held

    def late(self, now: float) -> bool:
        timeout = self.request.timeout
        return timeout is not None and now - self.submitted >= timeout

    def take(self, token: int, vocab: Vocabulary, n_ctx: int) -> FinishReason | None:
        """Add a token to the answer; why it ends with it, if it does."""
        if vocab.is_end(token):
            return "stop"
        self.tokens.append(token)
        self.new.append(token)
        self.text.append(self.output.feed(vocab.piece(token)))
        if self.output.stopped:
            return "stop"
        # The last token need not be held, so an answer may be one longer than the context.
        full = len(self.tokens) > n_ctx
        return "length" if full or self.n_output == self.request.sampling.max_tokens else None

    def delta(self) -> list[Event]:
        """What was taken since the last time, as one event."""
        if not self.new:
            return []
        event = TextDelta(self.request_id, "".join(self.text), tuple(self.new))
        self.text, self.new = [], []
        return [event]

    def finish(self, reason: FinishReason, now: float, load_seconds: float) -> list[Event]:
        """The last events."""
        events, rest = self.delta(), self.output.flush()
        if rest:
            events.append(TextDelta(self.request_id, rest, ()))
        first = self.first_token or now
        usage = Usage(
            prompt_tokens=len(self.request.prompt),
            cached_tokens=self.cached,
            output_tokens=self.n_output,
            load_seconds=load_seconds,
            prefill_seconds=first - (self.started or now),
            decode_seconds=now - first,
            drafted_tokens=self.lookup.drafted if self.lookup else 0,
            accepted_tokens=self.lookup.accepted if self.lookup else 0,
        )
        return [*events, Finished(self.request_id, reason, usage)]
