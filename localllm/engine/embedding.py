"""Embeddings: texts to unit vectors, through llama.cpp.

A file that was made for this names how token states become one vector, and llama.cpp does it. With any other, a text's
vector is the mean of its tokens' states after the last norm. Either way it is scaled to length 1.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localllm.engine.adapters import AdapterSet
from localllm.engine.backend import Part
from localllm.engine.context import Context
from localllm.engine.loading import DEFAULT_CTX, open_contexts, open_model
from localllm.engine.native import library
from localllm.engine.threads import default_threads
from localllm.engine.vocab import Vocab
from localllm.errors import ContextOverflowError, EngineError, UnsupportedModelError, UsageError
from localllm.weights.gguf import read_header

_CHUNK = 512
"""Tokens of a batch, for a model whose tokens look back only: what it holds of logits grows with it."""
_NO_POOLING, _RANKING = 0, 4  # enum llama_pooling_type


class Embedder:
    """A model opened for embeddings. See `open`."""

    def __init__(self, model: Any, context: Context, vocab: Vocab, n_ctx: int, n_batch: int) -> None:
        """Takes over a loaded model and its context; use `open` instead."""
        self._llama = library()
        self._model, self._context, self._vocab = model, context, vocab
        self._n_batch = n_batch
        self.n_ctx = n_ctx
        self.width: int = self._llama.llama_model_n_embd(model)
        self._pooled = self._llama.llama_pooling_type(context.pointer) != _NO_POOLING

    @classmethod
    def open(
        cls,
        path: Path,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        adapters: Sequence[tuple[Path, float]] = (),
    ) -> Embedder:
        """Load a model, as `LlamaEngine.open` does. Raises ModelError, AdapterError, EngineError, UsageError."""
        file = read_header(path)
        kind = file.metadata.get(f"{file.architecture}.pooling_type", _NO_POOLING)
        if kind == _RANKING:
            message = f"{path.name} ranks texts; it has no vectors for them."
            raise UnsupportedModelError(message, "Choose a model for embeddings with --model.")
        looks_ahead = file.metadata.get(f"{file.architecture}.attention.causal") is False
        model = open_model(file)
        longest = n_ctx or min(library().llama_model_n_ctx_train(model), DEFAULT_CTX)
        # What is pooled by llama.cpp, or sees all of the text at once, has to come in one batch.
        n_batch = longest if looks_ahead or kind != _NO_POOLING else min(_CHUNK, longest)
        threads = n_threads or default_threads(file.size)
        (pointer,), size = open_contexts(model, file, n_ctx, [1], threads, n_batch)
        library().llama_set_embeddings(pointer, True)
        loras = AdapterSet(model, file)
        context = Context(model, pointer, loras, n_batch)
        embedder = cls(model, context, Vocab(model), size, n_batch)
        try:
            loras.attach(pointer, loras.resolve(adapters))
        except BaseException:
            embedder.close()
            raise
        return embedder

    def tokenize(self, text: str) -> list[int]:
        """The tokens that a text is embedded by; control tokens written out in it are text."""
        return self._vocab.tokenize(text, parse_special=False)

    def embed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The vector [width] of one text, of length 1. Raises ContextOverflowError, EngineError, UsageError."""
        check_tokens(tokens, self.n_ctx, self._vocab.size)
        self._context.trim(0, 0)
        total = np.zeros(self.width, np.float64)
        for start in range(0, len(tokens), self._n_batch):
            total += self._states(start, tokens[start : start + self._n_batch])
        return unit(total)

    def close(self) -> None:
        """Free everything native; safe to call twice."""
        if self._model is not None:
            self._context.close()
            self._llama.llama_model_free(self._model)
        self._model = None

    def _states(self, start: int, tokens: Sequence[int]) -> NDArray[np.float64]:
        """The sum of the states of these tokens, which follow `start` held ones; or what llama.cpp made of them."""
        status = self._context.decode([Part(0, start, tokens, len(tokens))])
        if status != "done":
            raise EngineError(f"llama.cpp could not read the text ({status}).", "Try a smaller --ctx.")
        if self._pooled:
            return self._array(self._llama.llama_get_embeddings_seq(self._context.pointer, 0), 1)
        return self._array(self._llama.llama_get_embeddings(self._context.pointer), len(tokens))

    def _array(self, source: Any, rows: int) -> NDArray[np.float64]:
        """The sum of `rows` vectors at an address of llama.cpp's."""
        if not ctypes.cast(source, ctypes.c_void_p).value:
            raise EngineError("llama.cpp has no embeddings for this model.", "Choose a model for embeddings.")
        vectors = np.ctypeslib.as_array(source, (rows, self.width))
        total: NDArray[np.float64] = vectors.sum(0, dtype=np.float64)
        return total


def check_tokens(tokens: Sequence[int], n_ctx: int, n_vocab: int) -> None:
    """Raises ContextOverflowError for too many, UsageError for none or for one that the model does not have."""
    if len(tokens) > n_ctx:
        raise ContextOverflowError(len(tokens), n_ctx, "The text", "Shorten it, or raise --ctx.")
    if not tokens or not all(0 <= token < n_vocab for token in tokens):
        what = "an id that the model has no token for" if tokens else "no tokens"
        raise UsageError(f"The text has {what}.", "Correct the request.")


def unit(total: NDArray[np.float64]) -> NDArray[np.float32]:
    """A vector [width] of length 1 in that direction. Raises EngineError where there is none."""
    norm = float(np.linalg.norm(total))
    if not norm or not np.isfinite(norm):
        raise EngineError("The model gives no vector for this text.", "Choose a model for embeddings.")
    return (total / norm).astype(np.float32)
