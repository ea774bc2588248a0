"""One GGUF model in llama.cpp: loaded, given one sequence of tokens at a time, its answers streamed.

The keys and values of the last request stay in the context; a request that begins with the same tokens, as the next
turn of a chat does, decodes only what is new. That changes the order of floating-point sums: tokens drawn at a
temperature may then differ from those of a fresh start with the same seed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.engine.adapters import AdapterSet
from localllm.engine.base import Finished, ModelInfo, Prefilled, Request, StepEvent, TextDelta
from localllm.engine.loading import open_context, open_model
from localllm.engine.native import library
from localllm.engine.output import OutputText
from localllm.engine.sampling import Sampler
from localllm.engine.template import ChatTemplate, named_template, no_template
from localllm.engine.threads import default_threads
from localllm.engine.vocab import Vocab
from localllm.errors import ContextOverflowError, EngineError, UsageError
from localllm.types import FinishReason, Message, Usage
from localllm.weights.gguf import GGUFFile, read_header

PREFILL_CHUNK = 512
_ABORTED = 2  # llama_decode's status when the abort callback said so
_NO_SLOT = 1


@dataclass
class _Running:
    """A request on its way."""

    request_id: int
    request: Request
    sampler: Sampler
    output: OutputText
    started: float = 0.0
    first_token: float = 0.0
    cached: int = 0
    pending: int | None = None
    """The token sampled last, which the context has not seen yet."""
    n_output: int = 0
    prefilled: bool = False
    text: list[str] = field(default_factory=list)


class LlamaEngine:
    """The Engine protocol over llama.cpp's low-level interface. See `open`."""

    def __init__(
        self, file: GGUFFile, model: Any, context: Any, n_ctx: int, template: str | None, load_seconds: float
    ) -> None:
        """Takes over a loaded model and its context (None for a vocabulary alone); use `open` instead."""
        self._llama = library()
        self._file, self._model, self._context, self._n_ctx = file, model, context, n_ctx
        self.vocab = Vocab(model)
        self._adapters = AdapterSet(model, file)
        self._template_source = template
        self._template: ChatTemplate | None = None
        self._load_seconds = load_seconds
        self._queue: deque[_Running] = deque()
        self._cancelled: set[int] = set()
        self._next_id = 1
        self._held: list[int] = []  # tokens whose keys and values are in the context, in order
        if context is not None:
            self._memory = self._llama.llama_get_memory(context)
            self._batch = self._llama.llama_batch_init(PREFILL_CHUNK, 0, 1)
            # Kept in a field: a collected callback is a segmentation fault.
            self._abort_callback = self._llama.ggml_abort_callback(self._should_abort)
            self._llama.llama_set_abort_callback(context, self._abort_callback, None)

    @classmethod
    def open(
        cls,
        path: Path,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        *,
        template: str | None = None,
        vocab_only: bool = False,
        exact: bool = False,
    ) -> LlamaEngine:
        """Load a model.

        `n_ctx` tokens of context (default: what the model was trained on, up to 4096); `template` one of our named
        chat templates in place of the file's; `vocab_only` loads the tokenizer and template alone; `exact` keeps
        float32 keys and values without flash attention, for comparisons. Raises ModelError, EngineError, UsageError.
        """
        started = time.perf_counter()
        source = named_template(template) if template else None
        file = read_header(path)
        model = open_model(file, vocab_only=vocab_only)
        context, size = None, 0
        if not vocab_only:
            threads = n_threads or default_threads(file.size)
            context, size = open_context(model, file, n_ctx, threads, PREFILL_CHUNK, exact=exact)
        if source is None:
            found = file.metadata.get("tokenizer.chat_template")
            source = found if isinstance(found, str) and found.strip() else None
        return cls(file, model, context, size, source, time.perf_counter() - started)

    @property
    def info(self) -> ModelInfo:
        meta, lib = self._file.metadata, self._llama
        return ModelInfo(
            path=self._file.path,
            name=str(meta.get("general.name", self._file.path.stem)),
            architecture=str(meta.get("general.architecture", "")),
            n_ctx=self._n_ctx,
            n_ctx_train=lib.llama_model_n_ctx_train(self._model),
            n_vocab=self.vocab.size,
            n_params=lib.llama_model_n_params(self._model),
            size_bytes=self._file.path.stat().st_size,
            has_template=self._template_source is not None,
        )

    # Text and tokens

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return self.vocab.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self.vocab.detokenize(tokens)

    def encode_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: str = ""
    ) -> list[int]:
        if self._template_source is None:
            raise no_template(self._file.path)
        if self._template is None:
            bos, eos = self.vocab.text_of(self.vocab.bos), self.vocab.text_of(self.vocab.eos)
            self._template = ChatTemplate(self._template_source, bos, eos)
        rendered = self._template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools)
        return self.vocab.tokenize_chat(rendered)

    # Requests

    def set_adapters(self, adapters: Sequence[tuple[Path, float]]) -> None:
        if self._queue:
            raise UsageError("An adapter cannot be changed while an answer is being written.", "Stop it first (Esc).")
        if self._adapters.attach(self._context, adapters):
            self._forget(0)  # what is held was computed with the adapters before

    def submit(self, request: Request) -> int:
        if len(request.prompt) >= self._n_ctx:
            raise ContextOverflowError(len(request.prompt) + 1, self._n_ctx)
        if not request.prompt:
            raise UsageError("There is nothing to answer: the prompt is empty.", "Write one.")
        running = _Running(
            self._next_id, request, Sampler(request.sampling, self.vocab), OutputText(request.sampling.stop)
        )
        self._next_id += 1
        self._queue.append(running)
        return running.request_id

    def cancel(self, request_id: int) -> None:
        self._cancelled.add(request_id)

    def step(self) -> list[StepEvent]:
        if not self._queue:
            return []
        running = self._queue[0]
        try:
            if running.request_id in self._cancelled:
                return self._finish(running, "cancelled")
            return self._decode(running) if running.prefilled else self._prefill(running)
        except Exception:
            self._drop(running)
            raise

    def close(self) -> None:
        """Free everything native; safe to call twice."""
        for running in self._queue:
            running.sampler.close()
        self._queue.clear()
        if self._context is not None:
            self._llama.llama_batch_free(self._batch)
            self._llama.llama_free(self._context)
        if self._model is not None:
            self._llama.llama_model_free(self._model)
        self._context = self._model = None

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits [n_tokens, n_vocab] of one sequence from an empty context, which is empty again afterwards."""
        rows = np.empty((len(tokens), self.vocab.size), np.float32)
        for start, chunk in self.logit_chunks(tokens):
            rows[start : start + len(chunk)] = chunk
        return rows

    def logit_chunks(self, tokens: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """`logits` in parts: (start, those of up to PREFILL_CHUNK tokens), each valid until the next."""
        if len(tokens) > self._n_ctx:
            raise ContextOverflowError(len(tokens), self._n_ctx, "The sequence")
        self._forget(0)
        for start in range(0, len(tokens), PREFILL_CHUNK):
            chunk = tokens[start : start + PREFILL_CHUNK]
            self._run(chunk, all_logits=True)
            source = self._llama.llama_get_logits(self._context)
            yield start, np.ctypeslib.as_array(source, (len(chunk), self.vocab.size))
        self._forget(0)

    # One step

    def _prefill(self, running: _Running) -> list[StepEvent]:
        prompt = running.request.prompt
        if not running.started:
            running.started = time.perf_counter()
            # The last token is decoded again even if held: its logits are needed.
            self._forget(min(_common_prefix(self._held, prompt), len(prompt) - 1))
            running.cached = len(self._held)
        begin = len(self._held)
        if not self._run(prompt[begin : begin + PREFILL_CHUNK]):
            return self._finish(running, "cancelled")
        running.prefilled = len(self._held) == len(prompt)
        events: list[StepEvent] = [Prefilled(running.request_id, len(self._held), len(prompt))]
        return [*events, *self._sample(running)] if running.prefilled else events

    def _decode(self, running: _Running) -> list[StepEvent]:
        assert running.pending is not None
        if not self._run([running.pending]):
            return self._finish(running, "cancelled")
        return self._sample(running)

    def _sample(self, running: _Running) -> list[StepEvent]:
        token = running.sampler.sample(self._context)
        if running.first_token == 0:
            running.first_token = time.perf_counter()
        if self.vocab.is_end(token):
            return self._finish(running, "stop")
        running.pending = token
        running.n_output += 1
        delta = TextDelta(running.request_id, running.output.feed(self.vocab.piece(token)), (token,))
        if running.output.stopped:
            return [delta, *self._finish(running, "stop")]
        full = len(self._held) >= self._n_ctx
        if running.n_output == running.request.sampling.max_tokens or full:
            return [delta, *self._finish(running, "length")]
        return [delta]

    def _finish(self, running: _Running, reason: FinishReason) -> list[StepEvent]:
        now = time.perf_counter()
        first = running.first_token or now
        usage = Usage(
            prompt_tokens=len(running.request.prompt),
            cached_tokens=running.cached,
            output_tokens=running.n_output,
            load_seconds=self._load_seconds,
            prefill_seconds=first - (running.started or now),
            decode_seconds=now - first,
        )
        rest = running.output.flush()
        self._drop(running)
        done = Finished(running.request_id, reason, usage)
        return [TextDelta(running.request_id, rest, ()), done] if rest else [done]

    def _drop(self, running: _Running) -> None:
        running.sampler.close()
        self._cancelled.discard(running.request_id)
        if running in self._queue:
            self._queue.remove(running)

    # The context

    def _run(self, tokens: Sequence[int], *, all_logits: bool = False) -> bool:
        """Decode tokens after those held; False when it was cancelled. Raises EngineError."""
        batch, begin = self._batch, len(self._held)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, begin + i
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            batch.logits[i] = all_logits or i == len(tokens) - 1
        status = self._llama.llama_decode(self._context, batch)
        if status == 0:
            self._held += tokens
            return True
        # Micro-batches that were done before the failure stay in the context.
        done = max(0, self._llama.llama_memory_seq_pos_max(self._memory, 0) + 1 - begin)
        self._held += tokens[:done]
        self._forget(begin + done)
        if status == _ABORTED:
            return False
        why = "its context is full" if status == _NO_SLOT else f"status {status}"
        raise EngineError(f"llama.cpp could not decode ({why}).", "Try a smaller --ctx, or start the program again.")

    def _forget(self, keep: int) -> None:
        """Hold only the first `keep` tokens."""
        if keep and self._llama.llama_memory_seq_rm(self._memory, 0, keep, -1):
            del self._held[keep:]
            return
        # Recurrent models cannot take back a part.
        self._llama.llama_memory_clear(self._memory, False)
        self._held.clear()

    def _should_abort(self, _data: Any) -> bool:
        return bool(self._queue) and self._queue[0].request_id in self._cancelled


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
