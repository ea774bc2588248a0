"""An MLX folder behind the Engine protocol: one request at a time, its prompt's beginning reused from the last one.

MLX itself is not known here: what computes is handed in as a `Net` (tune/network.py). Tokens are chosen by llama.cpp's
own samplers, so that settings mean the same for both formats.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from localllm.engine.backend import Group, Part, Status
from localllm.engine.base import ModelInfo, Request, StepEvent
from localllm.engine.folder_vocab import FolderVocab, chat_template
from localllm.engine.loading import DEFAULT_CTX
from localllm.engine.running import Running
from localllm.engine.sampling import Sampler
from localllm.engine.scheduler import Scheduler
from localllm.engine.template import ChatTemplate, named_template, no_template
from localllm.errors import AdapterError, ContextOverflowError, GrammarError, UsageError
from localllm.types import Message
from localllm.weights.adapter import WEIGHTS, Adapter, read_folder
from localllm.weights.mlx_folder import ModelFolder

PREFILL_CHUNK = 512
"""Tokens of a step at most."""


class Net(Protocol):
    """What computes: one sequence, of which the first `held` tokens are kept."""

    n_vocab: int
    n_params: int
    held: int
    can_trim: bool

    def forward(self, tokens: Sequence[int], rows: int, stopped: Callable[[], bool]) -> NDArray[np.float32] | None:
        """Logits [rows, n_vocab] of the last `rows` of the tokens that follow; None where it was stopped."""
        ...

    def trim(self, keep: int) -> bool:
        """Hold only the first `keep` tokens; where that is not possible, hold none and return False."""
        ...

    def states(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """The sum [width] of the tokens' states after the last norm; nothing is held before or afterwards."""
        ...

    def attach(self, adapters: Sequence[tuple[Adapter, float]]) -> None:
        """Use exactly these adapters, each with its strength. Raises AdapterMismatchError; the old ones then stay."""
        ...


class MLXEngine:
    """The Engine protocol over an MLX folder. See `open`."""

    def __init__(self, folder: ModelFolder, net: Net | None, n_ctx: int, template: str | None, seconds: float) -> None:
        """Use `open` instead."""
        self._folder, self._net, self._n_ctx = folder, net, n_ctx
        self.vocab = FolderVocab(folder.path, net.n_vocab if net else 0)
        self._source = named_template(template) if template else chat_template(folder.path, self.vocab.settings)
        self._template: ChatTemplate | None = None
        self._next_id = 1
        self._adapters = FolderAdapters(folder)
        self._group: Group = ()
        if net is not None:
            self._scheduler = Scheduler(
                _Sequence(net), self.vocab, n_slots=1, n_ctx=n_ctx, n_batch=PREFILL_CHUNK, load_seconds=seconds
            )

    @classmethod
    def open(
        cls,
        folder: ModelFolder,
        load: Callable[[ModelFolder], Net],
        n_ctx: int | None = None,
        *,
        template: str | None = None,
        vocab_only: bool = False,
    ) -> MLXEngine:
        """Take a checked folder; `load` makes its network, unless only tokens and template are wanted (`vocab_only`).

        `n_ctx` tokens of context (default: the model's own, up to 4096). Raises ModelError and UsageError.
        """
        started = time.perf_counter()
        size = checked_ctx(folder, n_ctx)
        net = None if vocab_only else load(folder)
        return cls(folder, net, size, template, time.perf_counter() - started)

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            path=self._folder.path,
            name=self._folder.path.name,
            architecture=str(self._folder.config.get("model_type", "")),
            n_ctx=self._n_ctx,
            n_ctx_train=trained_ctx(self._folder),
            n_vocab=self.vocab.size,
            n_params=self._net.n_params if self._net else 0,
            size_bytes=sum(file.stat().st_size for file in self._folder.files),
            has_template=self._source is not None,
        )

    # Text and tokens

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        return self.vocab.tokenize(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        return self.vocab.detokenize(tokens)

    def encode_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: str = ""
    ) -> list[int]:
        if self._source is None:
            raise no_template(self._folder.path)
        if self._template is None:
            self._template = ChatTemplate(self._source, self.vocab.bos_token, self.vocab.eos_token)
        rendered = self._template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools)
        return self.vocab.tokenize_chat(rendered)

    # Requests

    def set_adapters(self, adapters: Sequence[tuple[Path, float]]) -> None:
        group = self._adapters.resolve(adapters)
        if self._net is not None:
            if self._scheduler.busy:
                raise UsageError(
                    "An adapter cannot be changed while an answer is being written.", "Stop it first (Esc)."
                )
            self._scheduler.switch(group)
        self._group = group

    def submit(self, request: Request) -> int:
        if len(request.prompt) >= self._n_ctx:
            raise ContextOverflowError(len(request.prompt) + 1, self._n_ctx)
        if not request.prompt:
            raise UsageError("There is nothing to answer: the prompt is empty.", "Write one.")
        group = self._group if request.adapters is None else self._adapters.resolve(request.adapters)
        sampler = RowSampler(request, self.vocab)
        running = Running(self._next_id, replace(request, lookup=False), sampler, group, time.perf_counter())
        self._next_id += 1
        self._scheduler.submit(running)
        return running.request_id

    def cancel(self, request_id: int) -> None:
        self._scheduler.cancel(request_id)

    def step(self) -> list[StepEvent]:
        return self._scheduler.step()

    def close(self) -> None:
        """Let go of the weights; safe to call twice."""
        if self._net is not None:
            self._scheduler.close()
        self._net = None

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits [n_tokens, n_vocab] of one sequence; nothing is held before or afterwards."""
        assert self._net is not None
        self._scheduler.switch(self._group)
        self._net.trim(0)
        rows = self._net.forward(tokens, len(tokens), lambda: False)
        self._scheduler.forget()
        assert rows is not None
        return rows


class RowSampler(Sampler):
    """llama.cpp's samplers on logits that are not llama.cpp's."""

    def __init__(self, request: Request, vocab: FolderVocab) -> None:
        """Raises GrammarError for what needs llama.cpp's vocabulary, UsageError for a meaningless setting."""
        if request.sampling.grammar or request.sampling.json_schema is not None:
            message = "A grammar or JSON schema cannot be used with an MLX folder."
            raise GrammarError(message, "Use a GGUF of the same model for that.")
        super().__init__(request.sampling, vocab)  # type: ignore[arg-type]

    def sample(self, outputs: Any, index: int) -> int:
        """Choose from a row of logits, and remember the choice."""
        if self.greedy:
            return super().sample(outputs, index)
        candidates = self._candidates(outputs, index)
        self._llama.llama_sampler_apply(self._chain, ctypes.byref(candidates))
        token = int(candidates.data[candidates.selected].id)
        self._llama.llama_sampler_accept(self._chain, token)
        return token


class FolderAdapters:
    """Adapters for a model's folder: folders of ours, in which they lie by the names of mlx-lm's modules."""

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        self._read: dict[tuple[Path, int], _Loaded] = {}

    def resolve(self, adapters: Sequence[tuple[Path, float]]) -> Group:
        """Those of the folders, read. Raises AdapterError."""
        return tuple((self._one(path), scale) for path, scale in adapters)

    def _one(self, path: Path) -> _Loaded:
        if not (path / WEIGHTS).is_file():
            message = f"{self._folder.path.name} is an MLX folder, to which a GGUF adapter cannot be attached."
            raise AdapterError(message, "Use the adapter with the GGUF of the same model.")
        key = (path.resolve(), (path / WEIGHTS).stat().st_mtime_ns)
        if key not in self._read:
            self._read[key] = _Loaded(read_folder(path))
        return self._read[key]


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An adapter, the same as itself only, so that groups are compared without looking at its numbers."""

    adapter: Adapter


def loaded(group: Group) -> list[tuple[Adapter, float]]:
    """The adapters of a group and their strengths."""
    return [(one.adapter, scale) for one, scale in group]


class _Sequence:
    """The scheduler's backend: one slot, whose parts come alone."""

    def __init__(self, net: Net) -> None:
        self._net, self.can_trim = net, net.can_trim
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._group: Group = ()
        self._stopped = False

    def decode(self, parts: Sequence[Part]) -> Status:
        (part,) = parts
        self._rows = {}
        found = self._net.forward(part.tokens, part.rows, lambda: self._stopped)
        if found is None:
            return "aborted"
        first = len(part.tokens) - part.rows
        self._rows = {first + number: row for number, row in enumerate(found)}
        return "done"

    def row(self, index: int) -> NDArray[np.float32]:
        """Logits [n_vocab] of the batch's token with that index; they may be changed."""
        return self._rows[index]

    def choose(self, sampler: Any, row: int) -> int:
        return int(sampler.sample(self, row))

    def length(self, slot: int) -> int:
        return self._net.held

    def trim(self, slot: int, keep: int) -> bool:
        return self._net.trim(keep)

    def copy(self, source: int, target: int, keep: int) -> None:
        """There is one slot only, so nothing is ever copied."""

    def attach(self, group: Group) -> None:
        if group != self._group:
            self._net.attach(loaded(group))
            self._group = group

    def interrupt(self, on: bool) -> None:
        self._stopped = on


def checked_ctx(folder: ModelFolder, n_ctx: int | None) -> int:
    """The context to use, by default the model's own, up to 4096. Raises UsageError for more than it was trained on."""
    most = trained_ctx(folder)
    if n_ctx is not None and not 0 < n_ctx <= most:
        message = f"--ctx {n_ctx} is not possible: {folder.path.name} was trained on up to {most} tokens."
        raise UsageError(message, f"Choose 1 to {most}.")
    return n_ctx or min(most, DEFAULT_CTX)


def trained_ctx(folder: ModelFolder) -> int:
    """Tokens that the model was trained on, as its configuration says."""
    said = folder.config.get("max_position_embeddings")
    return said if isinstance(said, int) and said > 0 else DEFAULT_CTX
