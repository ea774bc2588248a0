"""Prove that an adapter does in llama.cpp what it does in MLX: both on the same rows, base and base + adapter."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from localllm.errors import AdapterError, VerificationError
from localllm.evaluate.agreement import Agreement
from localllm.store.registry import Registry
from localllm.tasks.certifying import write_certificate
from localllm.tasks.comparing import Pair, compared
from localllm.tasks.conversion import Conversion, measure
from localllm.tasks.heldout import HELD_OUT, choose_positions, count, read_held_out
from localllm.tasks.judging import certificate, judge
from localllm.tasks.probes import probe_rows
from localllm.types import AdapterRef, Example, ModelRef
from localllm.weights.adapter import GGUF_NAME, WEIGHTS
from localllm.weights.gguf import read_header

CONVERSION_POSITIONS = 64
T = TypeVar("T")


@dataclass(frozen=True)
class VerifyStarted:
    """What will be compared."""

    adapter: str
    model: str
    rows: int
    positions: int
    kind: str
    """Where the rows come from: "held-out", "given" or "built-in"."""


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
    conversion: Conversion | None
    """None where there was no room on the disk to measure it."""
    passed: bool
    problem: str
    remark: str
    certificate: dict[str, Any]


VerifyEvent = VerifyStarted | VerifyProgress | VerifyResult


@dataclass(frozen=True)
class Rows:
    """What to compare on, and where it comes from."""

    kind: str
    examples: list[Example]


def verify(
    registry: Registry,
    adapter: str,
    model: str | None = None,
    data: Path | None = None,
    cancel: threading.Event | None = None,
) -> Iterator[VerifyEvent]:
    """Compare an adapter of this machine on its base (default: the one that it names) and keep the certificate.

    On the rows that were held out when it was made, on those of `data`, or on a few built-in texts. The last event is
    the VerifyResult; VerificationError is raised after it when the adapter did not pass.
    Raises AdapterNotFoundError, AdapterMismatchError and AdapterError.
    """
    ref = registry.adapter(adapter)
    base = registry.model(model or _base_of(registry, ref))
    ref = registry.adapter_for(adapter, base)
    folder = ref.path.parent
    if not (folder / WEIGHTS).is_file():
        raise AdapterError(
            f"{ref.path} has no {WEIGHTS} beside it, so there is nothing to compare it with.",
            "Import it first: localllm import ADAPTER --model M.",
        )
    rows = rows_for(base.path, folder, data)
    for event in verify_folder(ref.name, folder, base, registry.sha256(base.path), rows, registry.home.cache, cancel):
        if isinstance(event, VerifyResult):
            write_certificate(ref.path, event.certificate)
        yield event
        if isinstance(event, VerifyResult):
            require_passed(event)


def rows_for(base: Path, folder: Path, data: Path | None = None) -> Rows:
    """The rows of `data`, those held out when the adapter was made, or the built-in ones."""
    if data is None and (folder / HELD_OUT).is_file():
        return Rows("held-out", read_held_out(folder / HELD_OUT))
    return Rows("given" if data else "built-in", probe_rows(base, data))


def verify_folder(
    name: str,
    folder: Path,
    base: ModelRef,
    base_sha256: str,
    rows: Rows,
    cache: Path,
    cancel: threading.Event | None = None,
) -> Iterator[VerifyEvent]:
    """Compare the adapter in `folder` (adapter.gguf with adapters.safetensors); the last event is the VerifyResult."""
    n_vocab = read_header(base.path).tensors["token_embd.weight"].shape[0]
    main = choose_positions(rows.examples, n_vocab)
    few = choose_positions(rows.examples, n_vocab, CONVERSION_POSITIONS)
    yield VerifyStarted(name, base.name, len(main), count(main), rows.kind)
    pair, total = Pair(base.path, folder, folder / GGUF_NAME), 2 * (len(main) + len(few))
    conversion = yield from _counted(measure(pair, few, cache, cancel), 0, total)
    agreement = yield from _counted(compared(pair, main, cache, cancel), 2 * len(few), total)
    verdict = judge(conversion, agreement)
    kept = certificate(conversion, agreement, verdict, base_sha256, rows.kind)
    yield VerifyResult(name, agreement, conversion, not verdict.problem, verdict.problem, verdict.remark, kept)


def require_passed(result: VerifyResult) -> None:
    """Raise VerificationError for a result that did not pass."""
    if not result.passed:
        raise VerificationError(result.problem, "Do not rely on this adapter; make it again.")


def _counted(work: Generator[int, None, T], done: int, total: int) -> Generator[VerifyProgress, None, T]:
    """The work's own result, its yields made into progress."""
    while True:
        try:
            done += next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        yield VerifyProgress(min(done, total), total)


def _base_of(registry: Registry, adapter: AdapterRef) -> str:
    """The base that an adapter names in its manifest: by path where that still holds, else by name."""
    base = registry.manifest(adapter).get("base", {})
    if not base.get("name"):
        raise AdapterError(f"{adapter.path} does not say which model it was made for.", "Name it with --model.")
    path = str(base.get("path", ""))
    return path if path and Path(path).is_file() else str(base["name"])
