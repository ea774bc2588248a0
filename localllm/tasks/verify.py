"""Prove that an adapter does in llama.cpp what it does in MLX: both on the same rows, base and base + adapter."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from localllm.errors import AdapterError, VerificationError
from localllm.evaluate.agreement import Agreement
from localllm.store.registry import MANIFEST, Registry
from localllm.tasks.certifying import write_certificate
from localllm.tasks.comparing import Pair, compared, work_folder
from localllm.tasks.conversion import Conversion, measure
from localllm.tasks.foreign import read_foreign, require_attachable
from localllm.tasks.heldout import HELD_OUT, choose_positions, count, read_held_out
from localllm.tasks.judging import certificate, judge
from localllm.tasks.probes import probe_rows
from localllm.types import AdapterRef, Example, ModelRef
from localllm.weights.adapter import GGUF_NAME, WEIGHTS, write_folder
from localllm.weights.gguf import read_header
from localllm.weights.lora import write_gguf

CONVERSION_POSITIONS, CONVERSION_TOKENS = 64, 96
"""On float32 weights, which are slow: so many positions, within so many tokens of each row."""
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
    """Compare an adapter on its base (default: the one that it names).

    One of this machine, by name: on the rows that were held out when it was made, on those of `data`, or on a few
    built-in texts; it then carries the certificate. Or any other, by its path; nothing is kept of that one. The last
    event is the VerifyResult; VerificationError is raised after it when the adapter did not pass.
    Raises AdapterNotFoundError, AdapterMismatchError and AdapterError.
    """
    ours = _of_this_machine(registry, adapter)
    base = registry.model(model or _base_of(registry, ours, adapter))
    with work_folder(registry.home.cache) as work:
        if ours:
            name, folder = registry.adapter_for(adapter, base).name, ours.path.parent
        else:
            name, folder = _converted(registry, Path(adapter).expanduser(), base, work)
        rows, sha256 = rows_for(base.path, folder, data), registry.sha256(base.path)
        for event in verify_folder(name, folder, base, sha256, rows, registry.home.cache, cancel):
            if ours and isinstance(event, VerifyResult):
                write_certificate(ours.path, event.certificate)
            yield event
            if isinstance(event, VerifyResult):
                require_passed(event)


def _of_this_machine(registry: Registry, adapter: str) -> AdapterRef | None:
    """The adapter that was made or imported here, or None for a path to another. Raises AdapterNotFoundError."""
    path = Path(adapter).expanduser()
    if path.exists() and not (path / MANIFEST).is_file():
        return None
    ref = registry.adapter(adapter)
    if not (ref.path.parent / WEIGHTS).is_file():
        raise AdapterError(f"{ref.path} has no {WEIGHTS} beside it.", "Import the adapter again.")
    return ref


def _converted(registry: Registry, path: Path, base: ModelRef, work: Path) -> tuple[str, Path]:
    """An adapter from elsewhere as one of ours in `work`; a GGUF is used as it is."""
    header = read_header(base.path)
    found = read_foreign(registry, path, base, header)
    require_attachable(found.adapter, header, str(path), base.name)
    write_folder(work, found.adapter)
    if found.gguf:
        shutil.copyfile(found.gguf, work / GGUF_NAME)
    else:
        write_gguf(work / GGUF_NAME, found.adapter, header, {})
    return path.stem, work


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
    few = choose_positions(rows.examples, n_vocab, CONVERSION_POSITIONS, CONVERSION_TOKENS)
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


def _base_of(registry: Registry, adapter: AdapterRef | None, name: str) -> str:
    """The base that an adapter names in its manifest: by path where that still holds, else by name."""
    base = registry.manifest(adapter).get("base", {}) if adapter else {}
    if not base.get("name"):
        raise AdapterError(f"{name} does not say which model it was made for.", "Name it with --model.")
    path = str(base.get("path", ""))
    return path if path and Path(path).is_file() else str(base["name"])
