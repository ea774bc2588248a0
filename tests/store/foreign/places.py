"""The stores of other programs, made as those programs lay them out."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

KINDS = "application/vnd.ollama.image."


def ollama(root: Path, name: str, layers: list[tuple[str, bytes]], *, host: str = "registry.ollama.ai") -> Path:
    """A model of Ollama's store, `name` being namespace/model/tag; returns its manifest."""
    blobs = root / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    entries = []
    for kind, content in layers:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / f"sha256-{digest}").write_bytes(content)
        entries.append({"mediaType": f"{KINDS}{kind}", "digest": f"sha256:{digest}", "size": len(content)})
    return manifest(root, f"{host}/{name}", {"schemaVersion": 2, "layers": entries})


def manifest(root: Path, place: str, content: Any) -> Path:
    path = root / "manifests" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def hub(root: Path, repo: str, files: dict[str, bytes], commit: str = "c0ffee") -> Path:
    """A repository in the hub's cache; returns its snapshot."""
    folder = root / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for path, content in files.items():
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        pointer = snapshot / path
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs/main").write_text(commit)
    return snapshot
