"""The architectures that can be trained: one file each, found by its name."""

from __future__ import annotations

import importlib
import pkgutil

from localllm.errors import UnsupportedModelError
from localllm.weights.architectures.base import Architecture
from localllm.weights.gguf import GGUFFile


def supported() -> list[str]:
    """Names of all architectures, as GGUF's `general.architecture` has them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base")


def entry(name: str) -> Architecture:
    """The entry of a supported architecture."""
    found: Architecture = importlib.import_module(f"{__name__}.{name}").ENTRY
    return found


def architecture_of(file: GGUFFile) -> Architecture:
    """The entry for a model file. Raises UnsupportedModelError naming what is supported."""
    names = supported()
    hint = f"Fine-tuning supports: {', '.join(names)}."
    if file.kind != "model":
        raise UnsupportedModelError(f"{file.path} holds an {file.kind}, not a model.", hint)
    if file.architecture not in names:
        problem = f"{file.path} has the architecture {file.architecture!r}, which cannot be fine-tuned yet."
        raise UnsupportedModelError(problem, hint)
    found = entry(file.architecture)
    for key, variant in found.refused.items():
        if file.metadata.get(f"{file.architecture}.{key}"):
            raise UnsupportedModelError(f"{file.path} is {variant}, which cannot be fine-tuned yet.", hint)
    return found
