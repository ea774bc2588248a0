"""The child process: `python -m localllm.tune FOLDER` does the job in FOLDER and says on stdout what happens.

A child because MLX takes memory that only the end of a process gives back, and because a crash in native code, or the
kernel's out-of-memory killer, then costs the run and not the program. It ends at once when its standard input closes,
which the system does for it even if the parent is killed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from localllm import children
from localllm.data.batches import count
from localllm.errors import LocalLLMError
from localllm.tune.config import TrainConfig
from localllm.tune.events import Failed, Ready, TuneEvent, Warned, encode
from localllm.tune.guard import ended_with_stdin
from localllm.tune.job import BASE_LOGPROBS, METRICS, TUNED_LOGPROBS, Job, read_examples, read_job
from localllm.tune.ranks import ALONE, place, shared_threads
from localllm.types import Example
from localllm.weights.adapter import from_tensors, write_folder
from localllm.weights.safetensors import Matrix

OUT_OF_MEMORY = "Use a smaller --batch-size, --max-length or --rank, or close other programs."


def main() -> int:
    """Do the job; 0 when it is done, 1 when it failed and said why."""
    children.end_with_parent(130)
    folder = Path(sys.argv[1])
    try:
        job = read_job(folder)
        for event in _train(folder, job) if job.mode == "train" else _compare(folder, job):
            print(encode(event), flush=True)
    except LocalLLMError as error:
        print(encode(Failed(error.message, error.hint)), flush=True)
        return 1
    except OSError as error:
        said = f"{error.filename or job.adapter} cannot be written: {error.strerror or error}."
        print(encode(Failed(said, "Check permissions and free space, then run the same command again.")), flush=True)
        return 1
    except (MemoryError, RuntimeError) as error:
        # MLX says std::bad_alloc, "[malloc_or_wait] Unable to allocate", "[metal::malloc] ..."
        if not isinstance(error, MemoryError) and "alloc" not in str(error):
            raise
        print(encode(Failed("Training ran out of memory.", OUT_OF_MEMORY)), flush=True)
        return 1
    return 0


def _train(folder: Path, job: Job) -> Iterator[TuneEvent]:
    from localllm.tune import checkpoint
    from localllm.tune.device import prepare, residence

    assert job.config is not None
    start, config = time.perf_counter(), job.config
    where = place(os.environ) if job.processes > 1 else ALONE
    last = checkpoint.newest(folder).checkpoint
    before = last.facts["runtime"] if last else {}  # to go on with what computed, where there is a choice
    device = prepare(job.cache, before.get("threads") or shared_threads(where))
    import mlx.core as mx

    from localllm.tune.activations import vectorize_activations
    from localllm.tune.attention import vectorize_attention
    from localllm.tune.group import join
    from localllm.tune.load import load_model
    from localllm.tune.load_folder import load_folder
    from localllm.tune.loop import train
    from localllm.tune.saving import Saver
    from localllm.weights.excerpt import float_size
    from localllm.weights.gguf import read_header
    from localllm.weights.mlx_folder import read_model_folder

    with ended_with_stdin() if where.size > 1 else nullcontext():
        group = join(where)
    group.check_same(job.fingerprint)
    examples, held_out = read_examples(folder, "train"), read_examples(folder, "held_out")
    file = read_header(job.model)
    held = before.get("residence") or residence(device.kind, float_size(file))
    dtype = mx.float16 if held == "quantized" else mx.float32
    if job.mlx:
        model = load_folder(read_model_folder(job.mlx), file, held, dtype)
    else:
        model = load_model(file, held, dtype, other=job.other)
    if device.kind == "cpu" and not config.grad_checkpoint:  # faster, but with more to hold while it is computed
        vectorize_activations(model)
        vectorize_attention(model)
    trainable = _attach(model, job.model, config)
    if device.warning:
        yield Warned(device.warning)
    seconds, steps = time.perf_counter() - start, config.steps(count(examples, config.batch_size, config.batch_tokens))
    ready = Ready(device.kind, device.blas, held, trainable, steps, seconds, version("mlx"))
    yield ready
    runtime = {"device": device.kind, "blas": device.blas, "threads": device.threads, "residence": held}
    first, *others = group.gather(runtime)
    runtime = first | ({"others": others} if others else {})
    saver = Saver(folder, job.fingerprint, runtime, job.save_every, group)
    signal.signal(signal.SIGTERM, lambda *_: setattr(saver, "stop", True))

    def keep(best: dict[str, Matrix], log: Sequence[str]) -> None:
        if group.rank:
            return
        write_folder(job.adapter, from_tensors(best, config.rank, config.scale * config.rank, config.dropout))
        (job.adapter / METRICS).write_text("\n".join([encode(ready), *log]) + "\n", "utf-8")

    yield from train(model, config, examples, held_out, keep, saver, group)


def _attach(model: Any, path: Path, config: TrainConfig) -> int:
    from localllm.tune.lora import attach
    from localllm.tune.recompute import recompute_layers
    from localllm.weights.architectures import architecture_of
    from localllm.weights.gguf import read_header

    targets = config.targets or architecture_of(read_header(path)).trained
    alpha = config.scale * config.rank
    if config.grad_checkpoint:
        recompute_layers(model)
    return attach(model, config.rank, alpha, config.dropout, config.seed, targets, config.layers)


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
