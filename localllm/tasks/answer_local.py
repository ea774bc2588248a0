"""Answers from a model on this machine: chats side by side, embeddings one text at a time, each in a child process."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from localllm.engine.base import Engine, Failed, Finished, Request, TextDelta
from localllm.errors import (
    ContextOverflowError,
    EngineCrashedError,
    GrammarError,
    LocalLLMError,
    TemplateError,
    UsageError,
)
from localllm.store.registry import Registry
from localllm.tasks import batch_bodies
from localllm.tasks.answerer import EMBEDDINGS, Question, Refusal, Reply
from localllm.tasks.batch_bodies import BadBodyError
from localllm.tasks.opening import adapter_for, attachments, open_model
from localllm.tasks.room import Wish, check_room

if TYPE_CHECKING:
    from localllm.engine.worker_embedding import WorkerEmbedder

_MAX_CRASHES = 3
"""In a row, while requests were handed over: then it is not they that the engine dies of."""


@dataclass
class _Running:
    question: Question
    pieces: list[str] = field(default_factory=list)


class LocalAnswerer:
    """See `Answerer`. What it needs is loaded when the first request asks for it."""

    def __init__(
        self,
        name: str,
        settings: dict[str, Any],
        open_engine: Callable[[], Engine],
        open_embedder: Callable[[], WorkerEmbedder],
    ) -> None:
        self.name, self.settings = name, settings
        self._open_engine, self._open_embedder = open_engine, open_embedder
        self._engine: Engine | None = None
        self._embedder: WorkerEmbedder | None = None
        self._crashes = 0

    def answer(
        self, questions: Iterable[Question], cancel: threading.Event | None = None
    ) -> Iterator[tuple[Question, Reply]]:
        """Raises what loading a model raises, and EngineCrashedError where it dies again and again."""
        waiting = iter(questions)
        running: dict[int, _Running] = {}
        more = True
        try:
            while more or running:
                while more and len(running) < self._most():
                    if cancel is not None and cancel.is_set():
                        return
                    question = next(waiting, None)
                    if question is None:
                        more = False
                    elif reply := self._begin(question, running):
                        yield question, reply
                if cancel is not None and cancel.is_set():
                    return
                yield from self._step(running)
        finally:
            if self._engine is not None and running:
                for request_id in running:
                    self._engine.cancel(request_id)
                self._engine.step()

    def close(self) -> None:
        for opened in (self._engine, self._embedder):
            if opened is not None:
                opened.close()

    def _most(self) -> int:
        """Some wait in the engine's queue, so that a slot that becomes free is used at the next step."""
        return 2 * self._engine.info.n_slots if self._engine else 1

    def _begin(self, question: Question, running: dict[int, _Running]) -> Reply | None:
        """Hand a chat to the engine, or answer at once."""
        if question.url == EMBEDDINGS:
            self._embedder = self._embedder or self._open_embedder()
        else:
            self._engine = self._engine or self._open_engine()
        try:
            if question.url == EMBEDDINGS:
                reply = self._embed(question)
            else:
                reply = None
                running[self._submit(question)] = _Running(question)
            self._crashes = 0
            return reply
        except BadBodyError as error:
            return _refused("invalid_request", str(error))
        except LocalLLMError as error:
            if isinstance(error, EngineCrashedError):
                self._crashes += 1
                if self._crashes > _MAX_CRASHES:
                    raise
            return _refused(_code(error), str(error))

    def _submit(self, question: Question) -> int:
        assert self._engine is not None
        chat = batch_bodies.chat(question.body)
        if any(token >= self._engine.info.n_vocab for token, _ in chat.sampling.logit_bias):
            raise BadBodyError('"logit_bias" names a token that the model does not have.')
        try:
            return _hand_over(self._engine, chat)
        except EngineCrashedError:  # perhaps of another request
            return _hand_over(self._engine, chat)

    def _step(self, running: dict[int, _Running]) -> Iterator[tuple[Question, Reply]]:
        assert self._engine is not None or not running
        for event in self._engine.step() if self._engine and running else ():
            one = running.get(event.request_id)
            if one is None:
                continue
            if isinstance(event, TextDelta):
                one.pieces.append(event.text)
            elif isinstance(event, Failed):
                del running[event.request_id]
                yield one.question, _refused("engine_error", f"{event.message} {event.hint}".strip())
            elif isinstance(event, Finished):
                del running[event.request_id]
                yield one.question, self._completion(one, event)

    def _completion(self, one: _Running, finished: Finished) -> Reply:
        usage = finished.usage
        body = {
            "id": f"chatcmpl-{one.question.id}",
            "object": "chat.completion",
            "created": 0,  # the same request gives the same row
            "model": self.name,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "".join(one.pieces)},
                    "logprobs": None,
                    "finish_reason": finished.reason,
                }
            ],
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.output_tokens,
                "total_tokens": usage.prompt_tokens + usage.output_tokens,
            },
        }
        return Reply(200, body)

    def _embed(self, question: Question) -> Reply:
        assert self._embedder is not None
        wanted = batch_bodies.texts(question.body)
        data, tokens = [], 0
        for index, text in enumerate(wanted.inputs):
            vector, n_tokens = self._embedder.embed(text)
            written = base64.b64encode(vector.astype("<f4").tobytes()).decode() if wanted.base64 else vector.tolist()
            data.append({"object": "embedding", "index": index, "embedding": written})
            tokens += n_tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Reply(200, {"object": "list", "data": data, "model": self.name, "usage": usage})


def local_answerer(
    registry: Registry,
    model: str,
    adapter: str | None = None,
    *,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    n_slots: int | None = None,
    template: str | None = None,
    force: bool = False,
) -> LocalAnswerer:
    """Answers by a model and adapter of this machine; the options are those of `open_model`.

    Raises ModelError and AdapterError where one is not found, or where memory does not hold the model.
    """
    found = registry.model(model)
    attached = adapter_for(registry, adapter, found) if adapter else None
    if not force:
        wish = Wish(n_ctx, n_slots, n_threads=n_threads)
        check_room(registry, found, wish, [path for path, _ in attachments(found, attached)])

    def open_engine() -> Engine:
        options = {"n_ctx": n_ctx, "n_threads": n_threads, "template": template, "force": True}  # it was looked at
        return open_model(registry, model, adapter, n_slots=n_slots, worker=True, **options).engine  # type: ignore[arg-type]

    def open_embedder() -> WorkerEmbedder:
        adapters = attachments(found, attached)
        if found.path.is_dir():
            from localllm.tasks.mlx_child import MLXWorkerEmbedder

            return MLXWorkerEmbedder.open(found.path, n_ctx, n_threads, adapters, cache=str(registry.home.cache))
        from localllm.engine.worker_embedding import WorkerEmbedder

        return WorkerEmbedder.open(found.path, n_ctx, n_threads, adapters)

    settings = {
        "model_sha256": registry.sha256(found.path),
        "adapter_sha256": registry.sha256(attached.path) if attached else None,
        "n_ctx": n_ctx,
        "template": template,
    }
    name = f"{found.name}+{attached.name}" if attached else found.name
    return LocalAnswerer(name, settings, open_engine, open_embedder)


def _hand_over(engine: Engine, chat: batch_bodies.Chat) -> int:
    prompt = engine.encode_chat(chat.messages, tools=chat.tools)
    return engine.submit(Request(tuple(prompt), chat.sampling))


def _refused(code: str, message: str) -> Reply:
    return Reply(None, None, Refusal(code, message))


def _code(error: LocalLLMError) -> str:
    if isinstance(error, ContextOverflowError):
        return "context_length_exceeded"
    return "invalid_request" if isinstance(error, UsageError | TemplateError | GrammarError) else "engine_error"
