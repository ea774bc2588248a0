"""One adapter on one base, in MLX and in llama.cpp, at the same positions of the same rows."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from localllm.engine.llama import LlamaEngine
from localllm.errors import CancelledError
from localllm.evaluate.agreement import Agreement, LogProbs, compare, log_softmax
from localllm.tune.job import BASE_LOGPROBS, TUNED_LOGPROBS, Job, write_job
from localllm.tune.process import run_job
from localllm.types import Example
from localllm.weights.beside import is_running, storage_error
from localllm.weights.gguf import read_header
from localllm.weights.rope import depends_on_ctx, usual_ctx


@dataclass(frozen=True)
class Pair:
    """The same adapter for both programs, and the base that both read."""

    base: Path
    folder: Path
    """Has adapters.safetensors, for MLX."""
    gguf: Path
    """For llama.cpp."""


def compared(
    pair: Pair, sequences: Sequence[Example], cache: Path, cancel: threading.Event | None = None
) -> Generator[int, None, Agreement]:
    """Run both programs; yields 1 for every pass over a sequence in llama.cpp, and returns how closely they agree.

    Raises TrainingError, EngineError, AdapterError and CancelledError.
    """
    with work_folder(cache) as work:
        write_job(work, Job("compare", pair.base, pair.folder, cache), sequences=sequences)
        for _ in run_job(work, cancel):
            pass
        mlx = np.load(work / BASE_LOGPROBS), np.load(work / TUNED_LOGPROBS)
    tables = []
    for adapters in ([], [(pair.gguf, 1.0)]):
        table = yield from _llama_table(pair.base, adapters, sequences, cancel)
        tables.append(table)
    return compare((tables[0], mlx[0]), (tables[1], mlx[1]))


@contextmanager
def work_folder(cache: Path) -> Iterator[Path]:
    """A folder for what only a comparison needs: below the cache, because a system's temporary folder may be memory.

    What processes that were killed have left there is removed. Raises StorageError.
    """
    parent = cache / "verify"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.iterdir():
            number = left.name.partition("-")[0]
            if not number.isdigit() or not is_running(int(number)):
                shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))
    except OSError as error:
        raise storage_error(parent, error) from error
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _llama_table(
    base: Path, adapters: list[tuple[Path, float]], sequences: Sequence[Example], cancel: threading.Event | None
) -> Generator[int, None, LogProbs]:
    """Log-probabilities in llama.cpp at the positions that the sequences pick."""
    file, longest = read_header(base), max(32, *(len(s.tokens) for s in sequences))
    n_ctx = max(longest, usual_ctx(file)) if depends_on_ctx(file) else longest
    engine = LlamaEngine.open(base, n_ctx=n_ctx, exact=True)
    rows = []
    try:
        engine.set_adapters(adapters)
        for sequence in sequences:
            if cancel is not None and cancel.is_set():
                raise CancelledError("Stopped before the comparison was done.")
            rows.append(log_softmax(engine.logits(sequence.tokens)[np.flatnonzero(sequence.mask)]))
            yield 1
    finally:
        engine.close()
    return np.concatenate(rows)
