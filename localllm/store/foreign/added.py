"""Folders that a person added to the places where models are looked for: a list of paths in <home>/folders.json."""

from __future__ import annotations

import json
from pathlib import Path

from localllm.errors import UsageError
from localllm.store.files import write_atomically


def added_folders(file: Path) -> list[Path]:
    """In the order in which they were added; none where the list cannot be read."""
    try:
        said = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return []
    return [Path(path) for path in said if isinstance(path, str)] if isinstance(said, list) else []


def add_folder(file: Path, folder: Path) -> Path:
    """Remember a folder; returns its whole path. Raises UsageError where there is none, StorageError."""
    whole = folder.expanduser().resolve()
    if not whole.is_dir():
        raise UsageError(f"{folder} is not a folder.", "Name the folder in which the models lie.")
    known = added_folders(file)
    if whole not in known:
        _write(file, [*known, whole])
    return whole


def forget_folder(file: Path, folder: Path) -> Path:
    """Look there no longer; nothing in it is touched. Raises UsageError where it was not added, StorageError."""
    whole = folder.expanduser().resolve()
    known = added_folders(file)
    if whole not in known:
        names = ", ".join(map(str, known)) or "none"
        raise UsageError(f"{folder} was not added.", f"Added folders: {names}.")
    _write(file, [path for path in known if path != whole])
    return whole


def _write(file: Path, folders: list[Path]) -> None:
    write_atomically(file, json.dumps([str(path) for path in folders], indent=1).encode() + b"\n")
