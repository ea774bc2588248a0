"""Model cards (models/*.toml): short name -> what the model is and which file holds it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from localllm.errors import ModelError
from localllm.paths import builtin_models
from localllm.types import ModelRef


def cards(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """All cards by name, sorted. Raises ModelError naming the card that cannot be read."""
    folder = folder or builtin_models()
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            card = tomllib.loads(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
            raise ModelError(f"The model card {path} cannot be read: {e}.", "Reinstall the program.") from e
        found[str(card.get("name", path.stem))] = card
    return found


def builtin(name: str, folder: Path | None = None) -> ModelRef | None:
    """The model of that name that comes with the program, or None."""
    folder = folder or builtin_models()
    card = cards(folder).get(name)
    if card is None or "file" not in card:
        return None
    return ModelRef(
        name=name,
        path=folder / str(card["file"]),
        source="built-in",
        title=str(card.get("title", name)),
        description=str(card.get("description", "")),
        chunk_tokens=card.get("chunk_tokens"),
        sampling={key: float(value) for key, value in card.get("sampling", {}).items()},
    )
