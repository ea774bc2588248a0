"""How much of the disk models, adapters and what belongs to them take, and whose it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from localllm.store.foreign.model import OWNERS
from localllm.store.registry import Registry
from localllm.tasks.pruning import own_cache, partial_downloads
from localllm.tasks.removing import size_of


@dataclass(frozen=True)
class Usage:
    """One line of the table."""

    what: str
    owner: str
    """ "localllm", or the program whose files these are."""
    count: int
    bytes: int
    where: str


def disk_usage(registry: Registry) -> list[Usage]:
    """What is ours, then what other programs keep. Files are looked at, but not opened."""
    home, rows = registry.home, []
    built_in = [model.path for model in registry.models() if model.source == "built-in"]
    rows.append(_row("built-in models", built_in, str(built_in[0].parent) if built_in else ""))
    rows.append(_row("models", home.models.glob("*.gguf"), str(home.models)))
    rows.append(_pulled(registry))
    partial = [path for _, paths in partial_downloads(own_cache()) for path in paths]
    rows.append(_row("partial downloads", partial, str(own_cache())))
    rows.append(_row("adapters", [ref.path.parent for ref in registry.adapters()], str(home.adapters)))
    rows.append(_row("unfinished runs", home.runs.glob("*"), str(home.runs)))
    rows.append(_row("conversations", home.root.glob(f"{home.chats.name}*"), str(home.chats)))
    rows.append(_row("cache", [home.cache] if home.cache.exists() else [], str(home.cache)))
    return [*rows, *_foreign(registry), *_datasets(own_cache())]


def _row(what: str, paths: Iterable[Path], where: str) -> Usage:
    found = list(paths)
    return Usage(what, "localllm", len(found), sum(map(size_of, found)), where)


def _pulled(registry: Registry) -> Usage:
    """Each file once, though several models may share it."""
    models = registry.pulled()
    sizes = {digest: size for model in models for _, size, digest in model.files}
    return Usage("pulled models", "localllm", len(models), sum(sizes.values()), str(own_cache()))


def _foreign(registry: Registry) -> list[Usage]:
    found = registry.foreign()
    rows = []
    for source, name in OWNERS.items():
        mine = {model.path: model.bytes for model in found if model.source == source}
        if mine:
            count, size = len([model for model in found if model.source == source]), sum(mine.values())
            folders = [str(place.folder) for place in registry.places() if place.source == source]
            there = ", ".join(folder for folder in folders if Path(folder).is_dir())
            rows.append(Usage("models", name or "added folders", count, size, there))
    return rows


def _datasets(cache: Path) -> list[Usage]:
    """Those of the hub's cache, which do not say who fetched them."""
    found = sorted(cache.glob("datasets--*"))
    size = sum(size_of(folder / "blobs") for folder in found)
    return [Usage("datasets", OWNERS["hub"], len(found), size, str(cache))] if found else []


def total(rows: Iterable[Usage]) -> int:
    """Bytes of what is ours and could be removed."""
    return sum(row.bytes for row in rows if row.owner == "localllm" and row.what != "built-in models")
