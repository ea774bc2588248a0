"""How fast a model is fine-tuned here, and with how much memory: our training, and beside it PEFT's and mlx-lm's.

Each run is a process of its own on the same rows, with LoRA of the same rank on all linear layers and as many rows a
step. Tokens are those of the rows, without padding; loading and the first steps do not count.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from localllm.data.dataset import read_dataset
from localllm.data.examples import Encoder
from localllm.data.fitting import DEFAULT_MAX_LENGTH, fit
from localllm.engine.llama import LlamaEngine
from localllm.errors import DataError, LocalLLMError, UsageError
from localllm.tasks.bench_import import Absent, watch
from localllm.tasks.bench_train_child import MISSING
from localllm.tune.config import TrainConfig
from localllm.tune.events import Ready, Step, Trained
from localllm.tune.job import Job, write_job
from localllm.tune.process import run_job
from localllm.types import Conversation, Example
from localllm.weights.config import model_config
from localllm.weights.gguf import read_header

WARM_UP = 2
"""Steps that do not count."""
SLOW_STEPS = 3
"""Steps of mlx-lm, whose quantized products take minutes where MLX has no GPU."""
INSTALL = {
    "peft": "pip install torch peft transformers, or name another interpreter with --peer",
    "mlx_lm": "pip install mlx-lm",
}


@dataclass(frozen=True)
class TrainingRun:
    """One training in one process."""

    program: str
    """"localllm", "peft" or "mlx_lm"."""
    version: str
    steps: int
    tokens: int
    """Trained on after the warm-up, without padding."""
    tokens_per_second: float
    peak_rss: int
    """Bytes; the most that the process ever held."""
    load_seconds: float | None = None
    """Until the first step could begin, in the training process; of ours only."""


@dataclass(frozen=True)
class TrainingMedians:
    """The medians of a program's runs."""

    program: str
    version: str
    runs: int
    tokens_per_second: float
    peak_rss: int


@dataclass(frozen=True)
class Rows:
    """What every program trains on."""

    examples: list[Example]
    conversations: list[Conversation]


def bench_train(
    path: Path,
    data: Path,
    cache: Path,
    *,
    folder: Path | None = None,
    peer: Path | None = None,
    batch: int = 4,
    steps: int = 14,
    rank: int = 8,
    runs: int = 3,
) -> Iterator[TrainingRun | TrainingMedians | Absent]:
    """Every run as it ends, ours and PEFT's in turn, then mlx-lm's single one; at the end each program's medians.

    `folder` has the same model for the peers, as Hugging Face keeps it; without it there are none. `peer` is the
    interpreter that has PEFT, this one by default. Raises ModelError, DataError, TemplateError; UsageError for too few
    rows, steps or runs; TrainingError.
    """
    if runs < 1 or steps <= WARM_UP:
        raise UsageError(f"There must be at least 1 run of {WARM_UP + 1} steps, not {runs} of {steps}.")
    rows = _rows(path, data, batch * steps)
    done: list[TrainingRun] = []
    absent: list[Absent] = []
    for _ in range(runs):
        done.append(_ours(path, rows, cache, batch, rank))
        yield done[-1]
        if folder is not None and not absent:
            result = _theirs("peft", peer or Path(sys.executable), folder, rows, batch, steps, rank)
            (absent if isinstance(result, Absent) else done).append(result)  # type: ignore[arg-type]
            yield result
    if folder is not None:
        fewer = Rows(rows.examples[: batch * SLOW_STEPS], rows.conversations[: batch * SLOW_STEPS])
        result = _theirs("mlx_lm", Path(sys.executable), folder, fewer, batch, SLOW_STEPS, rank, path)
        done += [result] if isinstance(result, TrainingRun) else []
        yield result
    for program in dict.fromkeys(run.program for run in done):
        yield _medians([run for run in done if run.program == program])


def _rows(path: Path, data: Path, number: int) -> Rows:
    """The first rows that fit the model. Raises DataError where there are fewer."""
    conversations = [row for row in read_dataset(data) if row.messages]
    engine = LlamaEngine.open(path, vocab_only=True)
    try:
        encoder = Encoder(engine, engine.info.has_template, engine.vocab.eos, engine.vocab.is_end)
        limit = min(int(model_config(read_header(path))["max_position_embeddings"]), DEFAULT_MAX_LENGTH)
        chosen: list[Conversation] = []
        examples: list[Example] = []
        for row in conversations:
            if fitting := fit(encoder, [row], limit, "skip", data).examples:
                chosen.append(row)
                examples += fitting
            if len(chosen) == number:
                return Rows(examples, chosen)
    finally:
        engine.close()
    raise DataError(f"has {len(chosen)} rows of use, and {number} are needed.", "Take fewer --steps.", path=data)


def _ours(path: Path, rows: Rows, cache: Path, batch: int, rank: int) -> TrainingRun:
    config = TrainConfig(1, batch, 1e-4, rank, 2.0 * rank, batch_tokens=None)
    with TemporaryDirectory(prefix="localllm-bench-") as name:
        folder = Path(name)
        (folder / "adapter").mkdir()
        job = Job("train", path, folder / "adapter", cache, config, save_every=10**9)
        write_job(folder, job, train=rows.examples, held_out=rows.examples[:1])
        events = list(run_job(folder))
    ready = next(event for event in events if isinstance(event, Ready))
    steps = [event for event in events if isinstance(event, Step)]
    peak = next(event.peak_rss_mb for event in events if isinstance(event, Trained))
    warm, last = steps[WARM_UP - 1], steps[-1]
    tokens = last.tokens - warm.tokens
    seconds = last.tokens / last.tokens_per_second - warm.tokens / warm.tokens_per_second
    counted = len(steps) - WARM_UP
    return TrainingRun(
        "localllm", f"MLX {ready.version}", counted, tokens, tokens / seconds, int(peak * 1e6), ready.load_seconds
    )


def _theirs(
    program: str,
    interpreter: Path,
    model: Path,
    rows: Rows,
    batch: int,
    steps: int,
    rank: int,
    path: Path | None = None,
) -> TrainingRun | Absent:
    """One child from start to end, watched."""
    with TemporaryDirectory(prefix="localllm-bench-") as name:
        folder = Path(name)
        job = {
            "model": str(model.resolve()), "batch": batch, "steps": steps, "warm_up": WARM_UP, "rank": rank,
            "folder": name, "rows": [(example.tokens, _prompt(example)) for example in rows.examples],
            "texts": [_texts(row) for row in rows.conversations],
            "layers": int(model_config(read_header(path))["num_hidden_layers"]) if path else 0,
        }  # fmt: skip
        (folder / "job.json").write_text(json.dumps(job), "utf-8")
        script = Path(__file__).with_name("bench_train_child.py")
        command = [str(interpreter), str(script), program, str(folder / "job.json")]
        env = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            try:
                child = subprocess.Popen(command, env=env, stdout=out, stderr=err)
            except OSError as error:
                raise UsageError(
                    f"{interpreter} cannot be started: {error.strerror}.", "Give --peer a Python."
                ) from error
            try:
                _, resident = watch(child)
            except BaseException:
                child.kill()
                child.wait()
                raise
        lines = (folder / "out").read_text("utf-8").splitlines()
        complaints = (folder / "err").read_text("utf-8", "replace").strip().splitlines()
    answers: list[dict[str, Any]] = [json.loads(line) for line in lines if line.startswith("{")]
    if answers and MISSING in answers[-1]:
        return Absent(program, f"{answers[-1][MISSING]} is not installed for {interpreter}", INSTALL[program])
    if child.returncode or not answers:
        return Absent(program, complaints[-1] if complaints else f"it ended with code {child.returncode}", "See above")
    result = answers[-1]
    speed, counted = result["tokens"] / result["seconds"], steps - (WARM_UP if program == "peft" else 0)
    return TrainingRun(program, result["version"], counted, result["tokens"], speed, resident)


def _prompt(example: Example) -> int:
    """How many tokens come before the first that is learned."""
    return next((at for at, learned in enumerate(example.mask) if learned), len(example.tokens))


def _texts(row: Conversation) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in row.messages]


def _medians(runs: Sequence[TrainingRun]) -> TrainingMedians:
    if not runs:
        raise LocalLLMError("Nothing was measured.", "Run it again.")
    speed = statistics.median(run.tokens_per_second for run in runs)
    peak = int(statistics.median(run.peak_rss for run in runs))
    return TrainingMedians(runs[0].program, runs[0].version, len(runs), speed, peak)
