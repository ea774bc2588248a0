"""What the header of a model says that a person chooses by, and the memory that it takes; remembered for each file.

A header with a large vocabulary takes a tenth of a second to read, and there may be hundreds of models.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localllm.errors import LocalLLMError, ModelError
from localllm.store.hashes import FileCache
from localllm.store.registry import Registry
from localllm.weights import inference
from localllm.weights.gguf import GGUFFile
from localllm.weights.inference import PROCESS, chatting
from localllm.weights.parts import read_model

DEFAULT_CTX = 4096
"""Tokens of context that an estimate is for, unless the model has less or the person says otherwise."""
_MOST_LANGUAGES = 40


class FactsCache:
    """Facts of files, for chats with `n_ctx` tokens of context."""

    def __init__(self, registry: Registry, n_ctx: int | None = None) -> None:
        self._n_ctx = n_ctx
        # Another estimate of the memory makes what was remembered worthless: its code is part of the name.
        formula = zlib.crc32(Path(inference.__file__).read_bytes())
        self._kept = FileCache(registry.home.cache / f"facts-{formula:08x}-{n_ctx or DEFAULT_CTX}.json")

    def of_files(self, paths: Sequence[Path]) -> list[dict[str, Any]]:
        """Of each GGUF; one that cannot be used has `error`."""
        try:
            return self._kept.values(paths, self._of_file)
        except OSError:  # a file that went while it was looked at
            return [self._of_file(path) for path in paths]

    def _of_file(self, path: Path) -> dict[str, Any]:
        try:
            return header_facts(read_model(path), self._n_ctx)
        except LocalLLMError as error:
            return {"error": error.message}


def header_facts(file: GGUFFile, n_ctx: int | None = None) -> dict[str, Any]:
    """Plain values, for a row and for what is said of it."""
    from localllm.tasks import inventory

    facts: dict[str, Any] = dict(inventory.header_facts(file))
    context = file.metadata.get(f"{file.architecture}.context_length")
    template = file.metadata.get("tokenizer.chat_template")
    words = template if isinstance(template, str) else ""
    facts["context"] = context if isinstance(context, int) else None
    facts["template"], facts["tools"], facts["thinking"] = bool(words), "tools" in words, "think" in words
    facts["license"] = _text(file, "general.license")
    facts["title"] = _text(file, "general.name")
    said = file.metadata.get("general.languages")
    facts["languages"] = [str(code)[:8] for code in list(said)[:_MOST_LANGUAGES]] if isinstance(said, Sequence) else []
    return facts | needs_of(file, n_ctx)


def needs_of(file: GGUFFile, n_ctx: int | None = None) -> dict[str, Any]:
    """Bytes that a chat takes, as `localllm fit` says, and for how many tokens of context; None where it cannot be
    told.
    """
    context = file.metadata.get(f"{file.architecture}.context_length")
    used = n_ctx or (min(context, DEFAULT_CTX) if isinstance(context, int) else DEFAULT_CTX)
    try:
        return {"needs": chatting(file, used).needed, "n_ctx": used}
    except (ModelError, KeyError):  # an architecture without the numbers that count
        return {"needs": None, "n_ctx": used}


def folder_needs(size: int) -> int:
    """Of an MLX folder of so many bytes: without the cache, whose size its configuration does not tell alone."""
    return PROCESS + size


def _text(file: GGUFFile, key: str) -> str:
    said = file.metadata.get(key)
    return said[:200] if isinstance(said, str) else ""
