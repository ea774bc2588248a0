"""Embeddings in a child process: a crash in native code costs the text on its way, and not the program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from localllm.engine.worker_link import DiedError, Link
from localllm.engine.worker_messages import Embed, Embedded, OpenEmbedder
from localllm.errors import EngineError


class WorkerEmbedder:
    """An `Embedder` over a child process, which is started again for the next text when it has died. See `open`."""

    child: ClassVar[tuple[str, ...]] = ("localllm.engine.worker_child",)
    """The module that the child runs, and its arguments."""
    engine: ClassVar[str] = "llama.cpp"
    """What computes there."""

    def __init__(self, path: Path, options: dict[str, Any], adapters: Sequence[tuple[Path, float]]) -> None:
        """Starts nothing yet; use `open` instead."""
        self._open = OpenEmbedder(path, options, tuple((path, float(scale)) for path, scale in adapters))
        self._link: Link | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        path: Path,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        adapters: Sequence[tuple[Path, float]] = (),
        **options: Any,
    ) -> WorkerEmbedder:
        """Start a child and load a model in it; raises what `Embedder.open` raises, and EngineCrashedError."""
        embedder = cls(path, {"n_ctx": n_ctx, "n_threads": n_threads, **options}, adapters)
        embedder._ready()
        return embedder

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is none."""
        return self._link.pid if self._link else None

    def embed(self, text: str | Sequence[int]) -> tuple[NDArray[np.float32], int]:
        """The vector [width] of a text or its tokens, of length 1, and how many tokens it has.

        Raises what `Embedder.embed` raises, and EngineCrashedError.
        """
        wanted = text if isinstance(text, str) else tuple(text)
        if self._link is not None and self._link.is_over():
            self._drop()  # it died before it was asked
        embedded: Embedded = self._ask(self._ready(), Embed(wanted), "read a text")
        return np.array(embedded.vector, np.float32), embedded.n_tokens

    def close(self) -> None:
        """End the child; safe to call twice."""
        self._closed = True
        self._drop()

    def _ready(self) -> Link:
        if self._closed:
            raise EngineError("The engine is closed.", "Open the model again.")
        if self._link is None:
            self._link = Link(*self.child, engine=self.engine)
            try:
                self._ask(self._link, self._open, f"loaded {self._open.path.name}")
            except BaseException:
                self._drop()
                raise
        return self._link

    def _ask(self, link: Link, body: Any, doing: str) -> Any:
        try:
            return link.ask(body)
        except DiedError:
            error = link.crash(doing)
            self._drop()
            raise error from None

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
