"""One GGUF model in llama.cpp: loaded, given requests, its answers streamed; a `Scheduler` decides what is computed.

The keys and values of a finished request stay in its slot; a request that begins with the same tokens, as the next turn
of a chat does, decodes only what is new. That changes the order of floating-point sums: tokens drawn at a temperature
may then differ from those of a fresh start with the same seed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.engine.adapters import AdapterSet
from localllm.engine.base import ModelInfo, Request, StepEvent
from localllm.engine.capacity import batch_slots, lane_sizes
from localllm.engine.context import Context
from localllm.engine.lanes import Lane, Lanes
from localllm.engine.loading import open_contexts, open_model
from localllm.engine.native import library
from localllm.engine.running import Running
from localllm.engine.sampling import Sampler
from localllm.engine.scheduler import Scheduler
from localllm.engine.template import ChatTemplate, named_template, no_template
from localllm.engine.threads import default_threads, physical_cores
from localllm.engine.vocab import Vocab
from localllm.errors import ContextOverflowError, EngineError, UsageError
from localllm.types import Message
from localllm.weights.gguf import GGUFFile
from localllm.weights.parts import read_model
from localllm.weights.rope import usual_ctx

PREFILL_CHUNK = 512
"""Tokens of a batch at most."""


class LlamaEngine:
    """The Engine protocol over llama.cpp's low-level interface. See `open`."""

    def __init__(
        self,
        file: GGUFFile,
        model: Any,
        contexts: Sequence[Any],
        n_ctx: int,
        slots: Sequence[int],
        cores: int,
        threads: int,
        template: str | None,
        load_seconds: float,
    ) -> None:
        """Takes over a loaded model and its contexts (none for a vocabulary alone), each with a number of slots;
        `cores` are shared by contexts that compute at once, `threads` those of one that does alone. Use `open`."""
        self._llama = library()
        self._file, self._model, self._n_ctx, self._n_slots = file, model, n_ctx, sum(slots)
        self.vocab = Vocab(model)
        self._adapters = AdapterSet(model, file)
        self._group = self._adapters.resolve(())
        self._template_source = template
        self._template: ChatTemplate | None = None
        self._next_id = 1
        self._cores, self._threads, self._load_seconds = cores, threads, load_seconds
        self._contexts = [Context(model, context, self._adapters, PREFILL_CHUNK) for context in contexts]
        self._context = self._contexts[0] if contexts else None
        if contexts:
            self._scheduler = self._schedule(slots)

    def _schedule(self, slots: Sequence[int]) -> Scheduler | Lanes:
        schedulers = [
            Scheduler(
                context,
                self.vocab,
                n_slots=n_slots,
                n_ctx=self._n_ctx,
                n_batch=PREFILL_CHUNK,
                load_seconds=self._load_seconds,
            )
            for context, n_slots in zip(self._contexts, slots, strict=True)
        ]
        if len(schedulers) == 1:
            return schedulers[0]
        lanes = [Lane(one, context.use_threads) for one, context in zip(schedulers, self._contexts, strict=True)]
        return Lanes(lanes, cores=self._cores, alone=self._threads)

    @classmethod
    def open(
        cls,
        path: Path,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        *,
        n_slots: int | None = 1,
        template: str | None = None,
        vocab_only: bool = False,
        exact: bool = False,
    ) -> LlamaEngine:
        """Load a model.

        `n_ctx` tokens of context (default: what the model was trained on, up to 4096) for each of the `n_slots`
        requests that are answered side by side (None: as many as memory and cores allow); `template` one of our named
        chat templates in place of the file's; `vocab_only` loads the tokenizer and template alone; `exact` keeps
        float32 keys and values without flash attention, for comparisons and for answers that depend less on their
        company: now and then where llama.cpp rounds activations differently for rows that are left over (Q4_K, Q4_0),
        a little more where it multiplies several rows in another order (Q5_0, Q8_0).
        Raises ModelError, EngineError, UsageError.
        """
        started = time.perf_counter()
        source = named_template(template) if template else None
        file = read_model(path)
        model = open_model(file, vocab_only=vocab_only)
        threads, cores = n_threads or default_threads(file.size), n_threads or physical_cores()
        contexts, size, lanes = list[Any](), 0, list[int]()
        if not vocab_only:
            if n_slots is None:
                size = n_ctx or usual_ctx(file)
                n_slots = batch_slots(file, size, exact=exact, cores=cores)
            lanes = _lanes(n_slots, cores)
            contexts, size = open_contexts(model, file, n_ctx, lanes, threads, PREFILL_CHUNK, exact=exact)
        if source is None:
            found = file.metadata.get("tokenizer.chat_template")
            source = found if isinstance(found, str) and found.strip() else None
        return cls(file, model, contexts, size, lanes, cores, threads, source, time.perf_counter() - started)

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
            size_bytes=self._file.size,
            has_template=self._template_source is not None,
            n_slots=self._n_slots,
        )

    @property
    def computing_seconds(self) -> float:
        """How long llama.cpp has computed for requests so far; the rest of their time is scheduling and sampling."""
        return self._scheduler.computing_seconds if self._context is not None else 0.0

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
        self._refuse_while_busy("An adapter cannot be changed")
        group = self._adapters.resolve(adapters)
        if self._context is not None:
            self._scheduler.switch(group)
        self._group = group

    def submit(self, request: Request) -> int:
        if len(request.prompt) >= self._n_ctx:
            raise ContextOverflowError(len(request.prompt) + 1, self._n_ctx)
        if not request.prompt:
            raise UsageError("There is nothing to answer: the prompt is empty.", "Write one.")
        group = self._group if request.adapters is None else self._adapters.resolve(request.adapters)
        sampler = Sampler(request.sampling, self.vocab)
        drafts = request.lookup and sampler.greedy and self._context is not None and self._context.can_trim
        running = Running(self._next_id, request, sampler, group, time.perf_counter(), drafts)
        self._next_id += 1
        self._scheduler.submit(running)
        return running.request_id

    def cancel(self, request_id: int) -> None:
        self._scheduler.cancel(request_id)

    def step(self) -> list[StepEvent]:
        return self._scheduler.step()

    def close(self) -> None:
        """Free everything native; safe to call twice."""
        if self._context is not None:
            self._scheduler.close()
            for context in self._contexts:
                context.close()
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
        self._refuse_while_busy("Logits cannot be computed")
        assert self._context is not None
        self._scheduler.forget()
        self._scheduler.switch(self._group)
        self._context.use_threads(self._threads)
        for start in range(0, len(tokens), PREFILL_CHUNK):
            status, table = self._context.all_logits(0, start, tokens[start : start + PREFILL_CHUNK])
            if status != "done":
                self._scheduler.forget()
                raise EngineError(f"llama.cpp could not decode ({status}).", "Try a smaller --ctx, or start again.")
            yield start, table
        self._scheduler.forget()

    def _refuse_while_busy(self, what: str) -> None:
        if self._context is not None and self._scheduler.busy:
            raise UsageError(f"{what} while an answer is being written.", "Stop it first (Esc).")


def _lanes(n_slots: int, cores: int) -> list[int]:
    """Lanes share cores; a GPU is best asked by one."""
    return [n_slots] if library().llama_supports_gpu_offload() else lane_sizes(n_slots, cores)
