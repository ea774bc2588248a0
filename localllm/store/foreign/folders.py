"""Models in plain folders: GGUF files and MLX folders, at any depth that people use."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localllm.store.foreign.model import ForeignModel, clean, measured, parts, quantization

CONFIG = "config.json"
MAX_DEPTH = 6
MAX_FILES = 20_000
"""Names that are looked at in one place: somebody may add their whole disk."""
_MAX_CONFIG = 4 << 20
_BESIDE = ("mmproj", "ggml-vocab")  # eyes of a model, and vocabularies without weights


def in_folder(source: str, root: Path) -> list[ForeignModel]:
    """Models below a folder, named by their place in it without ".gguf"; sorted by name."""
    found = []
    for folder, names in _walk(root):
        if CONFIG in names and (model := mlx_folder(source, folder, _relative(root, folder), names)):
            found.append(model)
        found += [model for name in names if (model := _file(source, root, folder / name))]
    return sorted(found, key=lambda model: model.short.lower())


def mlx_folder(source: str, folder: Path, short: str, names: list[str]) -> ForeignModel | None:
    """A folder of safetensors that writes text, as a model for MLX; None for any other."""
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    if not weights:
        return None
    config = _config(folder / CONFIG)
    if config is None:
        return ForeignModel(source, short, folder, "mlx", 0, f"its {CONFIG} cannot be read")
    if not (config.get("quantization") or _writes_text(config)):
        return None
    size, problem = measured([folder / name for name in weights])
    if not problem and "tokenizer.json" not in names:
        problem = "it has no tokenizer.json"
    return ForeignModel(source, short, folder, "mlx", size, problem)


def gguf_file(source: str, path: Path, short: str, aliases: tuple[str, ...] = ()) -> ForeignModel | None:
    """A GGUF as a model; None for a later part of several, or what only goes beside a model."""
    if path.suffix.lower() != ".gguf" or path.name.lower().startswith((".", *_BESIDE)):
        return None
    files = parts(path)
    if not files:
        return None
    size, problem = measured(files)
    return ForeignModel(source, short, path, "gguf", size, problem, aliases)


def _file(source: str, root: Path, path: Path) -> ForeignModel | None:
    """Also known by its folder, by that with the quantization, and by its own name alone."""
    short = _relative(root, path).removesuffix(".gguf")
    above = short.rpartition("/")[0]
    label = quantization(path.stem)
    aliases = [short.rpartition("/")[2], f"{short}.gguf", *([above] if above else [])]
    return gguf_file(source, path, short, (*aliases, *([f"{above}:{label}"] if above and label else [])))


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files) down to MAX_DEPTH; links to folders are not followed, hidden ones left out."""
    looked = 0
    for place, folders, names in os.walk(root):
        depth = len(Path(place).relative_to(root).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < MAX_DEPTH else []
        looked += len(names) + len(folders)
        yield Path(place), sorted(names)
        if looked > MAX_FILES:
            return


def _relative(root: Path, path: Path) -> str:
    inside = path.relative_to(root).parts
    return "/".join(map(clean, inside)) or clean(path.name)


def _config(path: Path) -> dict[str, Any] | None:
    try:
        if path.stat().st_size > _MAX_CONFIG:
            return None
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _writes_text(config: dict[str, Any]) -> bool:
    names = config.get("architectures")
    return isinstance(names, list) and any(str(name).endswith("ForCausalLM") for name in names)
