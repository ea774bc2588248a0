"""Model cards (models/*.toml): short name -> what the model is, and the file or the repositories that hold it.

A card with `file` is of a model that comes with the program; the others have [gguf] and [mlx] with the `repo` of each
format and, for GGUF, the `quantization` that is taken where it fits.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from localllm.errors import ModelError
from localllm.paths import builtin_models
from localllm.types import ModelRef

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def cards(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """All cards by name, sorted. Raises ModelError naming the card that cannot be read."""
    folder = folder or builtin_models()
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.toml")):
        card = _read(path)
        found[str(card.get("name", path.stem))] = card
    return found


def card(name: str, folder: Path | None = None) -> dict[str, Any] | None:
    """The card of that name, which is its file's; without reading the others. Raises ModelError."""
    path = (folder or builtin_models()) / f"{name.lower()}.toml"
    return _read(path) if _NAME.fullmatch(name) and path.is_file() else None


def name_of(repo: str, folder: Path | None = None) -> str:
    """The name of the card that a repository belongs to, or nothing."""
    for name, found in cards(folder).items():
        if repo.lower() in (str(found.get(kind, {}).get("repo", "")).lower() for kind in ("gguf", "mlx")):
            return name
    return ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise ModelError(f"The model card {path} cannot be read: {e}.", "Reinstall the program.") from e


def builtin(name: str, folder: Path | None = None) -> ModelRef | None:
    """The model of that name that comes with the program, or None."""
    folder = folder or builtin_models()
    found = card(name, folder)
    if found is None or "file" not in found:
        return None
    return described(ModelRef(str(found.get("name", name)), folder / str(found["file"]), "built-in"), found)


def described(model: ModelRef, card: dict[str, Any]) -> ModelRef:
    """The same model with what its card says of it."""
    return replace(
        model,
        title=str(card.get("title", model.name)),
        description=str(card.get("description", "")),
        chunk_tokens=card.get("chunk_tokens"),
        sampling={key: float(value) for key, value in card.get("sampling", {}).items()},
    )
