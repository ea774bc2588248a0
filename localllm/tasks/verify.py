"""Prove that an adapter does in llama.cpp what it did in MLX: both on held-out rows, base and base + adapter."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from localllm.engine.llama import LlamaEngine
from localllm.errors import AdapterError, CancelledError, VerificationError
from localllm.evaluate.agreement import Agreement, LogProbs, compare, log_softmax
from localllm.store.registry import Registry
from localllm.tune.job import BASE_LOGPROBS, TUNED_LOGPROBS, Job, write_job
from localllm.tune.process import run_job
from localllm.types import AdapterRef, Example, ModelRef
from localllm.weights.adapter import GGUF_NAME, WEIGHTS

HELD_OUT = "heldout.jsonl"
MIN_COSINE, MAX_KL, MIN_TOP1 = 0.98, 2e-3, 0.97
NO_EFFECT = 1e-7  # nats; float32 noise is a thousand times smaller
MAX_POSITIONS = 256
MAX_PROBABILITIES = 1 << 24
"""Log-probabilities held for each of base and tuned, in each engine: 64 MiB."""


@dataclass(frozen=True)
class VerifyStarted:
    """What will be compared."""

    adapter: str
    model: str
    rows: int
    positions: int


@dataclass(frozen=True)
class VerifyProgress:
    """`done` of `total` passes over a row."""

    done: int
    total: int


@dataclass(frozen=True)
class VerifyResult:
    """The verdict; `problem` is empty when it passed."""

    adapter: str
    agreement: Agreement
    passed: bool
    problem: str
    certificate: dict[str, Any]


VerifyEvent = VerifyStarted | VerifyProgress | VerifyResult


def verify(
    registry: Registry, adapter: str, model: str | None = None, cancel: threading.Event | None = None
) -> Iterator[VerifyEvent]:
    """Compare an adapter of ours, by name or folder, on its base (default: the one that it names).

    The last event is the VerifyResult; VerificationError is raised after it when the adapter did not pass.
    Raises AdapterNotFoundError, AdapterMismatchError and AdapterError for one that was not made here.
    """
    ref = registry.adapter(adapter)
    base = registry.model(model or _base_of(registry, ref))
    ref = registry.adapter_for(adapter, base)
    folder = ref.path.parent
    if not (folder / WEIGHTS).is_file() or not (folder / HELD_OUT).is_file():
        raise AdapterError(
            f"{ref.path} has no {WEIGHTS} and {HELD_OUT} beside it, so there is nothing to compare it with.",
            "Only adapters made by `localllm finetune` can be verified.",
        )
    for event in verify_folder(ref.name, folder, base, registry.sha256(base.path), registry.home.cache, cancel):
        yield event
        if isinstance(event, VerifyResult):
            require_passed(event)


def verify_folder(
    name: str, folder: Path, base: ModelRef, base_sha256: str, cache: Path, cancel: threading.Event | None = None
) -> Iterator[VerifyEvent]:
    """Compare the adapter in `folder` (GGUF, safetensors and held-out rows); the last event is the VerifyResult."""
    n_vocab = _vocabulary_size(base)
    sequences = choose_positions(read_held_out(folder / HELD_OUT), n_vocab)
    yield VerifyStarted(name, base.name, len(sequences), sum(sum(s.mask) for s in sequences))
    work = Path(tempfile.mkdtemp(prefix="localllm-verify-"))
    try:
        write_job(work, Job("compare", base.path, folder, cache), sequences=sequences)
        for _ in run_job(work, cancel):
            pass
        mlx_base, mlx_tuned = np.load(work / BASE_LOGPROBS), np.load(work / TUNED_LOGPROBS)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    tables: list[LogProbs] = []
    for event in _llama_tables(base.path, folder / GGUF_NAME, sequences, cancel):
        if isinstance(event, VerifyProgress):
            yield event
        else:
            tables.append(event)
    agreement = compare((tables[0], mlx_base), (tables[1], mlx_tuned))
    problem = judge(agreement)
    yield VerifyResult(name, agreement, not problem, problem, certificate(agreement, not problem, base_sha256))


def judge(agreement: Agreement) -> str:
    """What is wrong, in a sentence; empty when nothing is.

    llama.cpp rounds activations where the base is quantized, adapter or not; what it does to the base alone is
    therefore allowed for.
    """
    a = agreement
    if a.effect_kl < NO_EFFECT:
        return "The adapter has no effect: the model answers as without it."
    if a.effect_cosine < MIN_COSINE:
        small = " (the effect is hardly larger than llama.cpp's rounding)" if a.effect_kl < 10 * a.base_kl else ""
        cosine = f"cosine {a.effect_cosine:.3f}, below {MIN_COSINE}"
        return f"The adapter moves llama.cpp in another direction than MLX: {cosine}{small}."
    if a.kl > (limit := max(MAX_KL, 3 * a.base_kl)):
        return f"With the adapter llama.cpp differs from MLX: mean KL {a.kl:.1e}, above {limit:.1e}."
    if a.top1 < (least := min(MIN_TOP1, a.base_top1 - 0.02)):
        return f"With the adapter both choose the same token at only {a.top1:.1%} of positions, below {least:.0%}."
    return ""


def require_passed(result: VerifyResult) -> None:
    """Raise VerificationError for a result that did not pass."""
    if not result.passed:
        raise VerificationError(result.problem, "Do not rely on this adapter; train it again with other settings.")


def certificate(agreement: Agreement, passed: bool, base_sha256: str) -> dict[str, Any]:
    """What is kept of a verification: numbers, versions and the base's content hash."""
    versions = {"llama_cpp_python": version("llama-cpp-python"), "mlx": version("mlx")}
    return {"passed": passed, **asdict(agreement), "base_sha256": base_sha256, **versions}


def choose_positions(rows: Sequence[Example], n_vocab: int) -> list[Example]:
    """Sequences whose mask picks the tokens after which distributions are compared: spread evenly over the rows'
    supervised parts, few enough to fit MAX_PROBABILITIES."""
    limit = min(MAX_POSITIONS, max(16, MAX_PROBABILITIES // n_vocab))
    rows = rows[:limit]
    longest = max(64, 4 * MAX_PROBABILITIES // n_vocab)  # the engine holds logits for a whole sequence
    share, extra = divmod(limit, max(1, len(rows)))
    chosen = []
    for number, row in enumerate(rows):
        candidates = [i for i in range(min(len(row.tokens), longest) - 1) if row.mask[i + 1]]
        candidates = candidates or list(range(min(len(row.tokens), longest)))[-share:]
        want = min(len(candidates), share + (number < extra))
        picked = {candidates[round(k)] for k in np.linspace(0, len(candidates) - 1, want)}
        end = max(picked) + 1
        chosen.append(Example(row.tokens[:end], tuple(i in picked for i in range(end)), row.line))
    return chosen


def write_held_out(path: Path, rows: Sequence[Example]) -> None:
    """One JSON object a line: tokens, mask (as 0 and 1) and the line in the dataset."""
    lines = [
        json.dumps({"line": r.line, "tokens": r.tokens, "mask": [int(m) for m in r.mask]}, separators=(",", ":"))
        for r in rows
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def read_held_out(path: Path) -> list[Example]:
    """Rows that `write_held_out` wrote. Raises AdapterError."""
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return [Example(tuple(r["tokens"]), tuple(map(bool, r["mask"])), r["line"]) for r in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path} cannot be read: {error}.") from error


def _llama_tables(
    base: Path, adapter: Path, sequences: Sequence[Example], cancel: threading.Event | None
) -> Iterator[VerifyProgress | LogProbs]:
    """Log-probabilities in llama.cpp: those of the base, then those with the adapter, progress in between."""
    total, done = 2 * len(sequences), 0
    engine = LlamaEngine.open(base, n_ctx=max(32, *(len(s.tokens) for s in sequences)), exact=True)
    try:
        for adapters in ([], [(adapter, 1.0)]):
            engine.set_adapters(adapters)
            rows = []
            for sequence in sequences:
                if cancel is not None and cancel.is_set():
                    raise CancelledError("Stopped before the comparison was done.")
                rows.append(log_softmax(engine.logits(sequence.tokens)[np.flatnonzero(sequence.mask)]))
                done += 1
                yield VerifyProgress(done, total)
            yield np.concatenate(rows)
    finally:
        engine.close()


def _base_of(registry: Registry, adapter: AdapterRef) -> str:
    """The base that an adapter names in its manifest: by path where that still holds, else by name."""
    base = registry.manifest(adapter).get("base", {})
    if not base.get("name"):
        raise AdapterError(f"{adapter.path} does not say which model it was made for.", "Name it with --model.")
    path = str(base.get("path", ""))
    return path if path and Path(path).is_file() else str(base["name"])


def _vocabulary_size(base: ModelRef) -> int:
    from localllm.weights.gguf import read_header

    return read_header(base.path).tensors["token_embd.weight"].shape[0]
