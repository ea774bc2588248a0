"""Taking a model or an adapter away: first what would go and what would break, then doing it.

What other programs keep is never deleted, and of a model that was pulled only our own note goes: its files lie in the
hub's cache, which others share. `files` takes those too, as far as no other snapshot leads to them.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from localllm.errors import ModelNotFoundError, StorageError, UsageError
from localllm.store.foreign.model import parts
from localllm.store.pulled import PulledModel, manifest_of
from localllm.store.registry import Registry
from localllm.tasks.listing import adapters_of
from localllm.types import ModelRef


@dataclass(frozen=True)
class Removal:
    """What would be removed."""

    name: str
    kind: str
    """ "adapter", "model" or "pulled model"."""
    paths: tuple[Path, ...]
    bytes: int
    """Of disk space that becomes free."""
    breaks: tuple[str, ...] = ()
    """Adapters that are good for nothing without this model."""
    left: Path | None = None
    """What stays in the hub's cache."""


def plan_removal(registry: Registry, name: str, *, files: bool = False) -> Removal:
    """What removing that adapter or model means. Raises ModelNotFoundError, and UsageError for what is not ours."""
    adapter = "/" not in name and registry.manifest_path(name).is_file()
    try:
        model = registry.model(name)
    except ModelNotFoundError:
        if gone := next((p for p in registry.pulled() if p.full_name == name and p.problem()), None):
            return Removal(name, "pulled model", (manifest_of(registry.home.pulled, gone),), 0)  # its files went before
        if not adapter:
            raise
        model = None
    if adapter and model is not None and model.source == "home":
        raise UsageError(
            f"{name} is an adapter and a model.", f"Delete the one that you mean by hand: {model.path} or its adapter."
        )
    if adapter:
        folder = registry.adapter_dir(name)
        return Removal(name, "adapter", (folder,), size_of(folder))
    assert model is not None
    return _model(registry, model, files)


def remove(removal: Removal) -> None:
    """Do it; each path is gone at once or still whole. Raises StorageError."""
    for path in removal.paths:
        try:
            if path.is_dir() and not path.is_symlink():
                hidden = path.with_name(f".{path.name}.removed-{os.getpid()}")
                os.rename(path, hidden)
                shutil.rmtree(hidden, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(f"{path} cannot be removed ({error.strerror}).", "Check its permissions.") from error


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links are not followed."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size if os.path.lexists(path) else 0
    return sum(f.lstat().st_size for f in path.rglob("*") if f.is_symlink() or f.is_file())


def _model(registry: Registry, model: ModelRef, files: bool) -> Removal:
    breaks = tuple(adapters_of(registry, model))
    if model.source == "home":
        paths = tuple(parts(model.path)) or (model.path,)
        return Removal(model.name, "model", paths, sum(map(size_of, paths)), breaks)
    pulled = next((p for p in registry.pulled() if p.full_name == model.name and Path(p.path) == model.path), None)
    if pulled is not None:
        note = manifest_of(registry.home.pulled, pulled)
        others = [other for other in registry.pulled() if other != pulled]
        taken = _files(pulled, others) if files else []
        sizes = sum(map(size_of, taken))
        return Removal(model.name, "pulled model", (note, *taken), sizes, breaks, None if files else Path(pulled.path))
    raise UsageError(f"{model.name} is not ours to remove: {_whose(model)}.", _where(model))


def _whose(model: ModelRef) -> str:
    source = model.name.partition(":")[0]
    if model.source == "built-in":
        return "it is part of the program"
    if model.source == "foreign" and source in ("ollama", "lmstudio", "hub", "llama.cpp"):
        names = {"ollama": "Ollama", "lmstudio": "LM Studio", "hub": "the hub's cache", "llama.cpp": "llama.cpp"}
        return f"it belongs to {names[source]}"
    return "it is a file of yours"


def _where(model: ModelRef) -> str:
    name = model.name.partition(":")[2]
    if model.source == "foreign" and model.name.startswith("ollama:"):
        return f"Remove it there: ollama rm {name}"
    if model.source == "foreign" and model.name.startswith("hub:"):
        return "Remove it there: hf cache rm"
    return "It stays." if model.source == "built-in" else f"It lies in {model.path.parent}."


def _files(pulled: PulledModel, others: list[PulledModel]) -> list[Path]:
    """Pointers of its snapshot, and the blobs that nothing else leads to."""
    folder = Path(pulled.path)
    if pulled.format == "gguf":
        folder = folder.parents[len(Path(pulled.files[0][0]).parts) - 1]
    kept = {path for other in others if other.repo == pulled.repo for path, _, _ in other.files}
    pointers = [folder / path for path, _, _ in pulled.files if path not in kept]
    blobs = folder.parents[1] / "blobs"
    leading = [link for link in folder.parent.rglob("*") if link.is_symlink() and link not in pointers]
    needed = {link.resolve() for link in leading}
    mine = {pointer.resolve() for pointer in pointers if pointer.is_symlink()}
    return [*pointers, *sorted(blob for blob in mine - needed if blob.parent == blobs.resolve() and blob.exists())]
