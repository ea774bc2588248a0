"""The child process: `python -m localllm.tune FOLDER` does the job in FOLDER and says on stdout what happens.

A child because MLX takes memory that only the end of a process gives back, and because a crash in native code, or the
kernel's out-of-memory killer, then costs the run and not the program. It ends at once when its standard input closes,
which the system does for it even if the parent is killed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from localllm.errors import LocalLLMError
from localllm.tune.events import Failed, Ready, TuneEvent, Warned, encode
from localllm.tune.job import BASE_LOGPROBS, TUNED_LOGPROBS, Job, read_examples, read_job
from localllm.types import Example

OUT_OF_MEMORY = "Use a smaller --batch-size, --max-length or --rank, or close other programs."


def main() -> int:
    """Do the job; 0 when it is done, 1 when it failed and said why."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    folder = Path(sys.argv[1])
    try:
        job = read_job(folder)
        for event in _train(folder, job) if job.mode == "train" else _compare(folder, job):
            print(encode(event), flush=True)
    except LocalLLMError as error:
        print(encode(Failed(error.message, error.hint)), flush=True)
        return 1
    except (MemoryError, RuntimeError) as error:
        # MLX says std::bad_alloc, "[malloc_or_wait] Unable to allocate", "[metal::malloc] ..."
        if not isinstance(error, MemoryError) and "alloc" not in str(error):
            raise
        print(encode(Failed("Training ran out of memory.", OUT_OF_MEMORY)), flush=True)
        return 1
    return 0


def _end_with_stdin() -> None:
    # os.read instead of sys.stdin: a lock held by a thread at exit would be fatal
    while os.read(0, 4096):
        pass
    os._exit(130)


def _train(folder: Path, job: Job) -> Iterator[TuneEvent]:
    from localllm.tune.device import prepare, residence

    assert job.config is not None
    start, config = time.perf_counter(), job.config
    device = prepare(job.cache)
    import mlx.core as mx

    from localllm.tune.checkpoint import Keeper
    from localllm.tune.load import load_model
    from localllm.tune.loop import train
    from localllm.tune.lora import attach
    from localllm.weights.architectures import architecture_of
    from localllm.weights.gguf import read_header

    examples, held_out = read_examples(folder, "train"), read_examples(folder, "held_out")
    held = residence(device.kind)
    file = read_header(job.model)
    model = load_model(file, held, mx.float32 if held == "float32" else mx.float16, other=job.other)
    targets = architecture_of(file).trained
    trainable = attach(model, config.rank, config.alpha, config.dropout, config.seed, targets)
    if device.warning:
        yield Warned(device.warning)
    seconds, steps = time.perf_counter() - start, config.steps(len(examples))
    yield Ready(device.kind, device.blas, held, trainable, steps, seconds, version("mlx"))
    yield from train(model, config, examples, held_out, Keeper(job.adapter, config))


def _compare(folder: Path, job: Job) -> Iterator[TuneEvent]:
    """Log-probabilities with float32 weights everywhere: it is the conversion that is judged, not a rounding."""
    from localllm.tune.device import prepare

    start = time.perf_counter()
    device = prepare(job.cache)
    import numpy as np

    from localllm.tune.compare import log_probabilities
    from localllm.tune.load import load_model
    from localllm.tune.lora import attach_adapter
    from localllm.weights.adapter import read_folder
    from localllm.weights.gguf import read_header

    sequences: list[Example] = read_examples(folder, "sequences")
    adapter = read_folder(job.adapter)
    model = load_model(read_header(job.model), "float32")
    trainable = attach_adapter(model, adapter)
    yield Ready(device.kind, device.blas, "float32", trainable, 0, time.perf_counter() - start, version("mlx"))
    base, tuned = log_probabilities(model, sequences)
    np.save(folder / BASE_LOGPROBS, base)
    np.save(folder / TUNED_LOGPROBS, tuned)


if __name__ == "__main__":
    # not sys.exit: the thread on stdin would hold up the interpreter's end
    code = main()
    sys.stdout.flush()
    os._exit(code)
