"""Fine-tune: a dataset and a GGUF in, a verified GGUF adapter in the registry out.

The person's mistakes are found first, cheapest first: the name, the model's architecture, the rows, their lengths. Then
a child process trains, what it made is converted, verified and measured in a staging folder, and renamed into place.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localllm.errors import AdapterError, DataError, TrainingError, VerificationError
from localllm.evaluate.agreement import Agreement
from localllm.store.files import write_atomically
from localllm.store.registry import MANIFEST, Registry
from localllm.tasks.answering import AnswerProgress, ExactMatch, exact_match_of
from localllm.tasks.conversion import Conversion
from localllm.tasks.evaluating import EvaluateProgress, EvaluateStarted
from localllm.tasks.heldout import HELD_OUT, write_held_out
from localllm.tasks.jobs import job_of, marks_of
from localllm.tasks.memory import check_fit, refusal, residence_here, settings_of, shrunk
from localllm.tasks.outcome import facts_of, manifest_of, prefixed, reported
from localllm.tasks.preparing import FinetuneRequest, Prepared, prepare, steps_of
from localllm.tasks.report import REPORT
from localllm.tasks.runs import RunFolder
from localllm.tasks.staging import Staging
from localllm.tasks.together import check_together, train_together
from localllm.tasks.unfinished import ask_to_finish, note
from localllm.tasks.verify import Rows, VerifyProgress, VerifyResult, VerifyStarted, verify_folder
from localllm.tune.checkpoint import newest
from localllm.tune.config import TrainConfig
from localllm.tune.events import Evaluated, Failed, Ready, Resumed, Step, Trained, Warned
from localllm.tune.job import write_job
from localllm.tune.process import run_job
from localllm.tune.ranks import ALONE, Place
from localllm.types import AdapterRef
from localllm.weights.adapter import GGUF_NAME, read_folder
from localllm.weights.lora import write_gguf


@dataclass(frozen=True)
class Started:
    """Everything was found to be in order."""

    model: str
    format: str
    """What the rows are: "conversations" or "text"."""
    rows: int
    held_out: int
    tokens: int
    """In the training rows."""
    supervised: int
    """Tokens of them that are learned."""
    longest: int
    config: TrainConfig
    steps: int


@dataclass(frozen=True)
class Done:
    """The adapter is in the registry."""

    adapter: AdapterRef
    agreement: Agreement
    conversion: Conversion | None
    base_loss: float
    """Validation loss, nats a token, before."""
    loss: float
    """And of the adapter that was kept."""
    best_epoch: int
    tested: int
    """Rows of --test."""
    exact_before: float | None
    """Share of them answered exactly by the base; None without --test."""
    exact_after: float | None
    tokens: int
    tokens_per_second: float
    peak_rss_mb: float
    """Of the training process."""
    seconds: float
    """Of everything."""
    verdict: str = ""
    """What changed, in words, and why they may say less than they seem to; empty without a report."""
    report: Path | None = None


FinetuneEvent = (
    Started
    | Ready
    | Resumed
    | Step
    | Evaluated
    | Warned
    | Trained
    | VerifyProgress
    | VerifyResult
    | AnswerProgress
    | EvaluateStarted
    | EvaluateProgress
    | Done
)


def finetune(
    registry: Registry,
    request: FinetuneRequest,
    cancel: threading.Event | None = None,
    where: Place = ALONE,
) -> Iterator[FinetuneEvent]:
    """Train, convert, verify, test and publish. The last event is Done.

    `where` is this process among those that train together, of which it is the first (see tasks.together).

    Raises DataError, ModelError, AdapterError and StorageError before anything is loaded; TrainingError;
    VerificationError, the adapter then lying in <home>/adapters/NAME.failed; CancelledError. A run that is left in the
    middle, by whatever means, goes on where it was saved when the same is asked for again.
    """
    start = time.perf_counter()
    _check_name(registry, request)
    prepared = prepare(registry, request)
    request, prepared, remark = _fitted(registry, request, prepared, where)
    yield from map(Warned, [*prepared.warnings, *remark])
    yield from map(Warned, _checked(prepared))
    yield _started(prepared)
    with RunFolder(registry.home, request.name) as run, Staging(registry.home, request.name) as staging:
        base_sha256 = registry.sha256(prepared.model.path)
        marks = marks_of(request, prepared, base_sha256, where.size)
        yield from map(Warned, run.begin(marks, resume=request.resume, restart=request.restart))
        note(run.folder, request, prepared)
        if request.finish:
            ask_to_finish(run.folder)
        job = job_of(registry, request, prepared, marks, where.size, staging.folder)
        write_job(run.folder, job, train=prepared.train, held_out=prepared.held_out)
        trained = yield from _train(run, cancel, where)
        facts = facts_of(request, prepared, trained, base_sha256)
        write_held_out(staging.folder / HELD_OUT, prepared.held_out)
        _write_gguf(staging.folder, prepared, facts)
        verified = yield from _verify(registry, request.name, staging, prepared, base_sha256, cancel)
        matched = yield from exact_match_of(prepared, staging.folder / GGUF_NAME, cancel)
        _write_gguf(staging.folder, prepared, facts | prefixed("verify", verified.certificate))
        manifest = manifest_of(request.name, prepared, facts, verified, matched)
        evaluated = (yield from reported(staging.folder, prepared, manifest, cancel)) if request.report else None
        write_atomically(staging.folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
        adapter = registry.publish_adapter(request.name, staging.folder)
    done = _done(adapter, verified, trained, matched, time.perf_counter() - start)
    if evaluated:
        words = f"{evaluated.verdict.words} {evaluated.verdict.remark}".strip()
        done = replace(done, verdict=words, report=adapter.path.with_name(REPORT))
    yield done


def _check_name(registry: Registry, request: FinetuneRequest) -> None:
    if registry.adapter_dir(request.name).exists() and not request.overwrite:
        raise AdapterError(
            f"There is already an adapter named {request.name!r}.", "Choose another --name, or add --overwrite."
        )


def _fitted(
    registry: Registry, request: FinetuneRequest, prepared: Prepared, where: Place
) -> tuple[FinetuneRequest, Prepared, list[str]]:
    """The request as it is where it fits the memory or may not be judged, or with --auto the largest one that fits.

    Raises TrainingError with the settings that would fit.
    """
    if where.size > 1:
        check_together(request, prepared, where)
        return request, prepared, []
    left = newest(registry.home.runs / request.name).checkpoint is not None and not request.restart
    if left or request.ignore_memory:  # a run that was left goes on with its own settings
        return request, prepared, []
    settings = settings_of(prepared.config, prepared.train, residence_here(prepared.header), request.other)
    weights = prepared.mlx.parameters if prepared.mlx else None
    fit = check_fit(prepared.header, settings, [len(example.tokens) for example in prepared.train], folder=weights)
    if fit.fits:
        return request, prepared, []
    if not request.auto:
        raise refusal(fit)
    smaller = shrunk(request, fit)
    return smaller, prepare(registry, smaller), [f"To fit the memory: {fit.as_options()}."]


def _checked(prepared: Prepared) -> Iterator[str]:
    """Warnings about the examples as a whole. Raises DataError where they teach nothing."""
    train, held_out = prepared.train, prepared.held_out
    for kind, examples in (("training", train), ("validation", held_out)):
        if not any(any(example.mask[1:]) for example in examples):
            raise DataError(
                f"None of the {len(examples)} {kind} rows has a token to learn.",
                "Look at them with `localllm data show`; --train-on all learns every token.",
            )
    if len(held_out) > len(train):
        yield (
            f"There are more rows to validate on ({len(held_out)}) than to learn from ({len(train)}), so most of the "
            "time goes into validation."
        )


def _started(prepared: Prepared) -> Started:
    config = prepared.config
    return Started(
        model=prepared.model.name,
        format=prepared.format,
        rows=len(prepared.train),
        held_out=len(prepared.held_out),
        tokens=sum(len(e.tokens) for e in prepared.train),
        supervised=sum(sum(e.mask) for e in prepared.train),
        longest=max(len(e.tokens) for e in (*prepared.train, *prepared.held_out)),
        config=config,
        steps=steps_of(prepared),
    )


def _train(run: RunFolder, cancel: threading.Event | None, where: Place) -> Generator[FinetuneEvent, None, Trained]:
    """Train in the child and pass on its events; returns the last."""
    trained: Trained | None = None
    job = run_job if where.size == 1 else train_together
    for event in job(run.folder, cancel, share=(run.lock,)):
        if isinstance(event, Trained):
            trained = event
        if not isinstance(event, Failed):  # run_job raises for that one
            yield event
    if trained is None:
        raise TrainingError("The training process ended early without a word.", "Run it again, or `localllm doctor`.")
    return trained


def _verify(
    registry: Registry,
    name: str,
    staging: Staging,
    prepared: Prepared,
    base_sha256: str,
    cancel: threading.Event | None,
) -> Generator[FinetuneEvent, None, VerifyResult]:
    """The verdict on the staged adapter. Raises VerificationError, the adapter then set aside."""
    result: VerifyResult | None = None
    rows, cache = Rows("held-out", prepared.held_out), registry.home.cache
    for event in verify_folder(name, staging.folder, prepared.model, base_sha256, rows, cache, cancel):
        if isinstance(event, VerifyResult):
            result = event
        if not isinstance(event, VerifyStarted):
            yield event
    assert result is not None
    if not result.passed:
        (staging.folder / "verify.json").write_text(json.dumps(result.certificate, indent=2) + "\n", "utf-8")
        aside = staging.set_aside(registry.adapter_dir(name).with_name(f"{name}.failed"))
        raise VerificationError(f"{result.problem} It was not registered.", f"What was made lies in {aside}.")
    return result


def _write_gguf(folder: Path, prepared: Prepared, metadata: dict[str, Any]) -> None:
    """adapter.gguf from the safetensors beside it; the same tensors whatever the metadata."""
    write_gguf(folder / GGUF_NAME, read_folder(folder), prepared.header, metadata)


def _done(adapter: AdapterRef, verified: VerifyResult, trained: Trained, matched: ExactMatch, seconds: float) -> Done:
    return Done(
        adapter=adapter,
        agreement=verified.agreement,
        conversion=verified.conversion,
        base_loss=trained.first_loss,
        loss=trained.best_loss,
        best_epoch=trained.best_epoch,
        tested=matched.rows,
        exact_before=matched.before,
        exact_after=matched.after,
        tokens=trained.tokens,
        tokens_per_second=trained.tokens / max(trained.seconds, 1e-9),
        peak_rss_mb=trained.peak_rss_mb,
        seconds=seconds,
    )
