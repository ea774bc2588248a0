"""The child process of an engine for an MLX folder: `python -m localllm.tasks.mlx_child`.

Here the engine and what computes for it are put together: the engine's room does not know MLX, and the room that does
knows no engines. Always a child, because MLX has to find the fast BLAS before anything else loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from localllm.engine.base import Engine
from localllm.engine.mlx import MLXEngine, Net
from localllm.engine.worker import WorkerEngine
from localllm.engine.worker_child import main
from localllm.engine.worker_embedding import WorkerEmbedder
from localllm.engine.worker_messages import Open, OpenEmbedder
from localllm.weights.mlx_folder import ModelFolder, read_model_folder

if TYPE_CHECKING:
    from localllm.engine.mlx_embedding import MLXEmbedder


CHILD = ("localllm.tasks.mlx_child",)


class MLXWorker(WorkerEngine):
    """An `MLXEngine` in a child process, with the arguments of `open_folder` as options."""

    child: ClassVar[tuple[str, ...]] = CHILD
    engine: ClassVar[str] = "MLX"


class MLXWorkerEmbedder(WorkerEmbedder):
    """An `MLXEmbedder` in a child process, with the arguments of `open_embedder` as options."""

    child: ClassVar[tuple[str, ...]] = CHILD
    engine: ClassVar[str] = "MLX"


def open_folder(
    path: Path,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    *,
    cache: str = "",
    template: str | None = None,
    vocab_only: bool = False,
) -> MLXEngine:
    """Check and load a folder in this process; `cache` is the folder for the compiled BLAS shim. Raises ModelError."""

    load = _loader(cache, n_threads)
    return MLXEngine.open(read_model_folder(path), load, n_ctx, template=template, vocab_only=vocab_only)


def open_embedder(
    path: Path,
    n_ctx: int | None = None,
    n_threads: int | None = None,
    adapters: Sequence[tuple[Path, float]] = (),
    *,
    cache: str = "",
) -> MLXEmbedder:
    """The same for embeddings. Raises ModelError, AdapterError and UsageError."""
    from localllm.engine.mlx_embedding import MLXEmbedder

    return MLXEmbedder.open(read_model_folder(path), _loader(cache, n_threads), n_ctx, adapters)


def _loader(cache: str, n_threads: int | None) -> Callable[[ModelFolder], Net]:
    def load(folder: ModelFolder) -> Net:
        from localllm.tune.network import Network

        return Network.open(folder, Path(cache), n_threads)

    return load


def _open(body: Open) -> Engine:
    return open_folder(body.path, **body.options)


def _open_embedder(body: OpenEmbedder) -> MLXEmbedder:
    return open_embedder(body.path, adapters=body.adapters, **body.options)


if __name__ == "__main__":
    main(_open, _open_embedder)
