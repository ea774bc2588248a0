"""A scripted engine for tests and demonstrations: it tokenizes by characters' code points and answers from a script."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from localllm.engine.base import Finished, ModelInfo, Prefilled, Request, StepEvent, TextDelta
from localllm.errors import ContextOverflowError, LocalLLMError
from localllm.types import FinishReason, Message, Usage


@dataclass
class FakeEngine:
    """Answers each request with the next text of `script` (the last one again when it runs out), token by token.

    A token is a code point of text; `delay` seconds pass for each. An exception in the script is raised by `step`.
    """

    script: Sequence[str | LocalLLMError | Callable[[str], str]] = ("Hello from the scripted engine.",)
    n_ctx: int = 4096
    delay: float = 0.0
    name: str = "fake"
    adapters: list[tuple[Path, float]] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    closed: bool = False
    _queue: deque[tuple[int, Request]] = field(default_factory=deque)
    _cancelled: set[int] = field(default_factory=set)
    _next_id: int = 0
    _answers: int = 0
    _pending: str | None = None
    _sent: int = 0

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(Path("/fake.gguf"), self.name, "fake", self.n_ctx, self.n_ctx, 0x110000, 1, 1, True)

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return [ord(c) for c in text]

    def detokenize(self, tokens: Sequence[int]) -> str:
        return "".join(chr(t) for t in tokens)

    def encode_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: str = ""
    ) -> list[int]:
        text = "".join(f"<{m.role}>{m.content}" for m in messages)
        return self.tokenize(text + ("<assistant>" if add_generation_prompt else ""))

    def set_adapters(self, adapters: Sequence[tuple[Path, float]]) -> None:
        self.adapters = list(adapters)

    def submit(self, request: Request) -> int:
        if len(request.prompt) >= self.n_ctx:
            raise ContextOverflowError(len(request.prompt) + 1, self.n_ctx)
        self._next_id += 1
        self._queue.append((self._next_id, request))
        self.prompts.append(self.detokenize(request.prompt))
        return self._next_id

    def step(self) -> list[StepEvent]:
        if not self._queue:
            return []
        request_id, request = self._queue[0]
        if self._pending is None:
            self._pending = self._next_answer(self.detokenize(request.prompt))
            self._sent = 0
            return [Prefilled(request_id, len(request.prompt), len(request.prompt))]
        limit = len(self._pending)
        if request.sampling.max_tokens is not None:
            limit = min(limit, request.sampling.max_tokens)
        if request_id in self._cancelled:
            return [self._finish(request, request_id, "cancelled")]
        if self._sent >= limit:
            return [self._finish(request, request_id, "stop" if limit == len(self._pending) else "length")]
        if self.delay:
            time.sleep(self.delay)
        character = self._pending[self._sent]
        self._sent += 1
        return [TextDelta(request_id, character, (ord(character),))]

    def cancel(self, request_id: int) -> None:
        self._cancelled.add(request_id)

    def close(self) -> None:
        self.closed = True

    def _next_answer(self, prompt: str) -> str:
        answer = self.script[min(self._answers, len(self.script) - 1)]
        self._answers += 1
        if isinstance(answer, LocalLLMError):
            self._queue.popleft()
            raise answer
        return answer(prompt) if callable(answer) else answer

    def _finish(self, request: Request, request_id: int, reason: FinishReason) -> Finished:
        self._queue.popleft()
        self._pending = None
        usage = Usage(len(request.prompt), 0, self._sent, 0.0, 0.01, max(self._sent, 1) * max(self.delay, 0.005))
        return Finished(request_id, reason, usage)
