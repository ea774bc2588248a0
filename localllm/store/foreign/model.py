"""A model that belongs to another program, and the names it goes by here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from localllm.sanitize import sanitize_line

OWNERS = {"ollama": "Ollama", "lmstudio": "LM Studio", "hub": "the hub's cache", "llama.cpp": "llama.cpp", "folder": ""}
"""What each source is called in sentences; a folder that was added has a path instead."""
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_LABEL = re.compile(r"(?:^|[-._])((?:UD-)?(?:I?Q\d(?:_[A-Z0-9]+)*|BF16|F16|F32|MXFP4(?:_[A-Z]+)*))$", re.IGNORECASE)


@dataclass(frozen=True)
class ForeignModel:
    """Files that are a model, or would be one (`problem`)."""

    source: str
    """A key of OWNERS, which its name begins with."""
    short: str
    """Its name within the source."""
    path: Path
    """The GGUF, the first of several parts, or the MLX folder."""
    format: str = "gguf"
    """ "gguf" or "mlx"."""
    bytes: int = 0
    problem: str = ""
    """Why it cannot be used, in half a sentence."""
    aliases: tuple[str, ...] = ()
    """Other names within the source; several models may share one."""
    layers: tuple[tuple[str, Path], ...] = ()
    """Of a model of Ollama: what else belongs to it (kind, file), in its order."""

    @property
    def name(self) -> str:
        return f"{self.source}:{self.short}"

    def answers_to(self, name: str) -> bool:
        """Whether a person may mean this model, with the source or without it; capitals do not count."""
        wanted, prefix = name.lower(), f"{self.source}:"
        return wanted.removeprefix(prefix) in {alias.lower() for alias in (self.short, *self.aliases)}


def clean(name: str) -> str:
    """A file's name as text that can be shown, written and typed, whatever bytes it has."""
    return sanitize_line(os.fsencode(name).decode("utf-8", "replace"))


def quantization(stem: str) -> str:
    """The quantization that a file's name ends with, or nothing."""
    found = _LABEL.search(_PART.sub("", stem))
    return found[1].upper() if found else ""


def parts(path: Path) -> list[Path]:
    """All files of the model whose first part, or only file, this is; none for a later part of several."""
    found = _PART.search(path.stem)
    if found is None:
        return [path]
    if int(found[1]) != 1:
        return []
    base, count = path.stem[: found.start()], int(found[2])
    return [path.with_name(f"{base}-{number:05}-of-{found[2]}.gguf") for number in range(1, count + 1)]


def measured(files: list[Path]) -> tuple[int, str]:
    """Bytes of the files together, and why they are no model where one is not there."""
    total = 0
    for file in files:
        try:
            size = file.stat().st_size
        except OSError as error:
            gone = "leads to a file that is gone" if file.is_symlink() else f"cannot be read ({error.strerror})"
            return total, f"{clean(file.name)} {gone}"
        if size == 0:
            return total, f"{clean(file.name)} is empty"
        total += size
    return total, ""
