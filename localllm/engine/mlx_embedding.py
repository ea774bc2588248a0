"""Embeddings from an MLX folder: the mean of a text's token states after the last norm, scaled to length 1.

The convention is that of engine/embedding.py for a GGUF that names none of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localllm.engine.embedding import check_tokens, unit
from localllm.engine.folder_vocab import FolderVocab
from localllm.engine.mlx import FolderAdapters, Net, checked_ctx, loaded
from localllm.errors import UnsupportedModelError
from localllm.weights.mlx_folder import ModelFolder

_POOLING = "modules.json"
"""Of models that are made for embeddings: they pool token states in a way of their own."""


class MLXEmbedder:
    """A folder opened for embeddings. See `open`."""

    def __init__(self, folder: ModelFolder, net: Net, n_ctx: int) -> None:
        """Use `open` instead."""
        self._net, self.n_ctx = net, n_ctx
        self._vocab = FolderVocab(folder.path, net.n_vocab)

    @classmethod
    def open(
        cls,
        folder: ModelFolder,
        load: Callable[[ModelFolder], Net],
        n_ctx: int | None = None,
        adapters: Sequence[tuple[Path, float]] = (),
    ) -> MLXEmbedder:
        """Take a checked folder, as `MLXEngine.open` does. Raises ModelError, AdapterError and UsageError."""
        if (folder.path / _POOLING).is_file():
            message = (
                f"{folder.path.name} makes vectors in a way of its own ({_POOLING}), which MLX folders have not here."
            )
            raise UnsupportedModelError(message, "Use a GGUF of it.")
        size = checked_ctx(folder, n_ctx)
        group = FolderAdapters(folder).resolve(adapters)
        net = load(folder)
        net.attach(loaded(group))
        return cls(folder, net, size)

    def tokenize(self, text: str) -> list[int]:
        """The tokens that a text is embedded by; control tokens written out in it are text."""
        return self._vocab.tokenize(text, parse_special=False)

    def embed(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The vector [width] of one text, of length 1. Raises ContextOverflowError, EngineError, UsageError."""
        check_tokens(tokens, self.n_ctx, self._vocab.size)
        return unit(self._net.states(tokens))
