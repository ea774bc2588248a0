"""Import: an adapter that was made elsewhere becomes one of ours, attachable and listed like those trained here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localllm.engine.adapters import check_adapter
from localllm.errors import AdapterError, CancelledError, VerificationError
from localllm.store.files import write_atomically
from localllm.store.registry import MANIFEST, Registry
from localllm.tasks.certifying import write_certificate
from localllm.tasks.foreign import Found, read_foreign, require_attachable
from localllm.tasks.staging import Staging
from localllm.tasks.verify import VerifyProgress, VerifyResult, VerifyStarted, rows_for, verify_folder
from localllm.types import AdapterRef, ModelRef
from localllm.weights.adapter import GGUF_NAME, write_folder
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.lora import write_gguf


@dataclass(frozen=True)
class ImportRequest:
    """What the person asked for."""

    adapter: Path
    """A folder of mlx-lm, PEFT or localllm, or a GGUF LoRA."""
    model: str
    name: str
    overwrite: bool = False
    verify: bool = False
    """Compare both programs on some texts first, and keep the certificate."""


@dataclass(frozen=True)
class ImportStarted:
    """It was read, and it fits the base."""

    adapter: str
    format: str
    model: str
    layers: int
    rank: int
    alpha: float


@dataclass(frozen=True)
class ImportNote:
    """Something that had to be assumed."""

    message: str


@dataclass(frozen=True)
class Imported:
    """It is in the registry."""

    adapter: AdapterRef
    format: str
    layers: int
    rank: int
    alpha: float
    bytes: int
    """Of adapter.gguf."""
    seconds: float


ImportEvent = ImportStarted | ImportNote | VerifyProgress | VerifyResult | Imported


def import_adapter(
    registry: Registry, request: ImportRequest, cancel: threading.Event | None = None
) -> Iterator[ImportEvent]:
    """Read, check, convert, verify if asked to, and publish. The last event is Imported.

    Raises AdapterNotFoundError, AdapterError and AdapterMismatchError for the adapter, ModelError for the base and
    StorageError, nothing then being kept; VerificationError, what was made then lying in <home>/adapters/NAME.failed.
    """
    start = time.perf_counter()
    _check_name(registry, request)
    model = registry.model(request.model)
    base = read_header(model.path)
    found = read_foreign(registry, request.adapter, model, base)
    require_attachable(found.adapter, base, str(request.adapter), request.model)
    adapter = found.adapter
    facts = (found.format, len(adapter.layers), adapter.rank, adapter.alpha)
    yield ImportStarted(str(request.adapter), facts[0], model.name, *facts[1:])
    yield from map(ImportNote, found.notes)
    with Staging(registry.home, request.name) as staging:
        manifest = _manifest(registry, request, model, found)
        _write(staging.folder, found, base, manifest)
        if cancel is not None and cancel.is_set():
            raise CancelledError("Stopped before the adapter was imported.")
        if request.verify:
            manifest["verify"] = yield from _verify(registry, request, staging, model, cancel)
        write_atomically(staging.folder / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
        size = (staging.folder / GGUF_NAME).stat().st_size
        published = registry.publish_adapter(request.name, staging.folder)
    yield Imported(published, *facts, size, time.perf_counter() - start)


def _verify(
    registry: Registry, request: ImportRequest, staging: Staging, model: ModelRef, cancel: threading.Event | None
) -> Generator[ImportEvent, None, dict[str, Any]]:
    """Verify the staged adapter; returns the certificate, which adapter.gguf then carries.

    Raises VerificationError, the adapter then set aside.
    """
    certificate: dict[str, Any] = {}
    folder, sha256 = staging.folder, registry.sha256(model.path)
    rows = rows_for(model.path, folder)
    for event in verify_folder(request.name, folder, model, sha256, rows, registry.home.cache, cancel):
        if isinstance(event, VerifyStarted):
            continue
        yield event
        if isinstance(event, VerifyResult):
            certificate = event.certificate
            write_certificate(folder / GGUF_NAME, certificate)
            if not event.passed:
                aside = staging.set_aside(registry.adapter_dir(request.name).with_name(f"{request.name}.failed"))
                raise VerificationError(f"{event.problem} It was not registered.", f"What was made lies in {aside}.")
    return certificate


def _check_name(registry: Registry, request: ImportRequest) -> None:
    if registry.adapter_dir(request.name).exists() and not request.overwrite:
        raise AdapterError(
            f"There is already an adapter named {request.name!r}.", "Choose another --name, or add --overwrite."
        )


def _write(folder: Path, found: Found, base: GGUFFile, manifest: dict[str, Any]) -> None:
    """adapters.safetensors, its configuration, and adapter.gguf, which is then checked as before every use."""
    write_folder(folder, found.adapter)
    origin = {
        "general.name": manifest["name"],
        "localllm.base.name": manifest["base"]["name"],
        "localllm.base.sha256": manifest["base"]["sha256"],
        "localllm.source.format": found.format,
        "localllm.source.sha256": manifest["source"]["sha256"],
    }
    write_gguf(folder / GGUF_NAME, found.adapter, base, origin)
    check_adapter(folder / GGUF_NAME, base)


def _manifest(registry: Registry, request: ImportRequest, model: ModelRef, found: Found) -> dict[str, Any]:
    """adapter.json: as finetune's, with the source in the place of the training."""
    return {
        "name": request.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": {"name": model.name, "sha256": registry.sha256(model.path), "path": str(model.path.resolve())},
        "source": found.source,
    }
