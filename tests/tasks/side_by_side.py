"""A scripted engine that answers several requests at once, a token of each a step, and can die."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from localllm.engine.base import Failed, Finished, ModelInfo, Request, StepEvent, TextDelta
from localllm.engine.fake import FakeEngine
from localllm.errors import GrammarError
from localllm.types import Usage


@dataclass
class SideBySide:
    """`answer` makes the text from the prompt; a token is a character. A prompt with `deadly` kills all in slots."""

    answer: Callable[[str], str]
    n_ctx: int = 600
    n_slots: int = 3
    deadly: str = "\0"
    asked: list[str] = field(default_factory=list)
    """Every prompt that was submitted."""
    cancelled: set[int] = field(default_factory=set)
    refuses_schemas: bool = False
    _active: dict[int, tuple[Request, str, int]] = field(default_factory=dict)
    _next_id: int = 0

    @property
    def info(self) -> ModelInfo:
        return replace(FakeEngine(n_ctx=self.n_ctx).info, n_slots=self.n_slots)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return [ord(c) for c in text]

    def detokenize(self, tokens: Sequence[int]) -> str:
        return "".join(map(chr, tokens))

    encode_chat = FakeEngine.encode_chat

    def set_adapters(self, adapters: Sequence[tuple[Path, float]]) -> None: ...

    def submit(self, request: Request) -> int:
        if self.refuses_schemas and request.sampling.json_schema:
            raise GrammarError("The JSON schema cannot be used.", "Use a simpler schema.")
        assert len(request.prompt) + (request.sampling.max_tokens or 0) <= self.n_ctx, "prompt and answer fit"
        self._next_id += 1
        prompt = self.detokenize(request.prompt)
        self.asked.append(prompt)
        limit = request.sampling.max_tokens
        self._active[self._next_id] = (request, self.answer(prompt)[:limit], 0)
        return self._next_id

    def step(self) -> list[StepEvent]:
        now = list(self._active.items())[: self.n_slots]
        if any(self.deadly in self.detokenize(request.prompt) for _, (request, _, _) in now):
            for number, _ in now:
                del self._active[number]
            return [Failed(number, "The engine died.", "Try again.") for number, _ in now]
        events: list[StepEvent] = []
        for number, (request, text, sent) in now:
            if number in self.cancelled:
                events.append(self._finished(number, request, sent, cancelled=True))
            elif sent < len(text):
                self._active[number] = (request, text, sent + 1)
                events.append(TextDelta(number, text[sent], (ord(text[sent]),)))
            else:
                events.append(self._finished(number, request, sent))
        return events

    def cancel(self, request_id: int) -> None:
        self.cancelled.add(request_id)

    def close(self) -> None: ...

    def _finished(self, number: int, request: Request, sent: int, *, cancelled: bool = False) -> Finished:
        del self._active[number]
        cut = sent == request.sampling.max_tokens
        usage = Usage(len(request.prompt), 0, sent, 0.0, 0.01, 0.01)
        return Finished(number, "cancelled" if cancelled else "length" if cut else "stop", usage)
