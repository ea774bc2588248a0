"""Models in the hub's cache, which huggingface_hub, mlx-lm, llama.cpp and this program share.

models--OWNER--NAME/refs/REVISION has the commit that was fetched last, snapshots/COMMIT/PATH leads to the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from localllm.store.foreign.folders import CONFIG, gguf_file, mlx_folder
from localllm.store.foreign.model import ForeignModel, clean, quantization

_MAX_FILES = 10_000


def in_hub_cache(root: Path) -> list[ForeignModel]:
    """Models of every repository's newest snapshot; sorted by name."""
    found: list[ForeignModel] = []
    for folder in _folders(root):
        owner, *name = folder.name.removeprefix("models--").split("--")
        if folder.name.startswith("models--") and (snapshot := _snapshot(folder)):
            found += _models("/".join(map(clean, [owner, "--".join(name)] if name else [owner])), snapshot)
    return sorted(found, key=lambda model: model.short.lower())


def _snapshot(folder: Path) -> Path | None:
    """The one that `main` is at, or the one that changed last."""
    try:
        commit = (folder / "refs/main").read_text("ascii").strip()
    except (OSError, ValueError):
        commit = ""
    there = _folders(folder / "snapshots")
    named = [snapshot for snapshot in there if snapshot.name == commit]
    return max(named or there, key=lambda snapshot: snapshot.stat().st_mtime, default=None)


def _models(repo: str, snapshot: Path) -> Iterator[ForeignModel]:
    names = [name for name in sorted(os.listdir(snapshot)) if not name.startswith(".")]
    if CONFIG in names and (model := mlx_folder("hub", snapshot, repo, names)):
        yield model
    files = [path for path in _files(snapshot) if path.suffix.lower() == ".gguf"]
    labels = [quantization(path.stem) for path in files if "-of-" not in path.stem or "-00001-of-" in path.stem]
    for path in files:
        inside = "/".join(map(clean, path.relative_to(snapshot).parts))
        label = quantization(path.stem)
        short = f"{repo}:{label}" if label and labels.count(label) == 1 else f"{repo}/{inside}"
        if model := gguf_file("hub", path, short, (repo, f"{repo}/{inside}", f"{repo}:{label}")):
            yield model


def _files(snapshot: Path) -> list[Path]:
    found: list[Path] = []
    for place, _, names in os.walk(snapshot):
        found += [Path(place) / name for name in sorted(names)]
        if len(found) > _MAX_FILES:
            break
    return found


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(Path(entry) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
