"""The child process of an engine for an MLX folder: `python -m localllm.tasks.mlx_child`.

Here the engine and what computes for it are put together: the engine's room does not know MLX, and the room that does
knows no engines. Always a child, because MLX has to find the fast BLAS before anything else loads it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from localllm.engine.base import Engine
from localllm.engine.mlx import MLXEngine, Net
from localllm.engine.worker import WorkerEngine
from localllm.engine.worker_child import main
from localllm.engine.worker_messages import Open
from localllm.weights.mlx_folder import ModelFolder, read_model_folder


class MLXWorker(WorkerEngine):
    """An `MLXEngine` in a child process, with the arguments of `open_folder` as options."""

    child: ClassVar[tuple[str, ...]] = ("localllm.tasks.mlx_child",)


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

    def load(folder: ModelFolder) -> Net:
        from localllm.tune.network import Network

        return Network.open(folder, Path(cache), n_threads)

    return MLXEngine.open(read_model_folder(path), load, n_ctx, template=template, vocab_only=vocab_only)


def _open(body: Open) -> Engine:
    return open_folder(body.path, **body.options)


if __name__ == "__main__":
    main(_open)
