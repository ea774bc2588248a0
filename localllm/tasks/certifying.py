"""The certificate of a verification, kept where it is looked for: in the GGUF adapter itself and in its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localllm.store.files import write_atomically
from localllm.store.registry import MANIFEST
from localllm.weights.entries import NewValue, Typed
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.writer import copy_gguf

PREFIX = "localllm.verify."


def write_certificate(adapter: Path, certificate: Mapping[str, Any]) -> None:
    """Put a certificate into an adapter of ours, replacing an earlier one; its tensors keep their bytes.

    Raises StorageError; the adapter is then as it was.
    """
    header = read_header(adapter)
    changes: dict[str, NewValue | None] = {key: None for key in header.metadata if key.startswith(PREFIX)}
    changes |= {f"{PREFIX}{key}": _typed(value) for key, value in certificate.items()}
    copy_gguf(header, adapter, metadata=changes)
    manifest = adapter.with_name(MANIFEST)
    if manifest.is_file():
        content = json.loads(manifest.read_text("utf-8")) | {"verify": dict(certificate)}
        write_atomically(manifest, json.dumps(content, indent=2).encode() + b"\n")


def read_certificate(adapter: GGUFFile) -> dict[str, Any]:
    """The certificate that a GGUF adapter carries; empty where it has none."""
    return {key.removeprefix(PREFIX): value for key, value in adapter.metadata.items() if key.startswith(PREFIX)}


def _typed(value: bool | int | float | str) -> NewValue:
    if isinstance(value, bool | str):
        return value
    return Typed("i64", value) if isinstance(value, int) else Typed("f64", value)
