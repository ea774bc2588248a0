"""Every model that a person can use or get, a row for each: those on this machine first, then those of the catalog.

Rows come in batches, for the first look at a large collection reads many headers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from localllm.errors import LocalLLMError
from localllm.store import catalog
from localllm.store.foreign.find import owner
from localllm.store.foreign.model import ForeignModel
from localllm.store.machine import available_memory
from localllm.store.pulled import PulledModel
from localllm.store.registry import Registry
from localllm.tasks.listing import folder_facts
from localllm.tasks.model_facts import FactsCache, folder_needs
from localllm.tasks.room import usable
from localllm.types import ModelRef
from localllm.weights.ggml import BY_NAME
from localllm.weights.inference import PROCESS

Verdict = Literal["fits", "tight", "too big", ""]
"""Empty where it cannot be told."""
Place = Literal["here", "catalog", "hub"]
BATCH = 8
_DEPTH, _MOST_FOLDERS = 5, 3000
_WHOSE = {"built-in": "built-in", "home": "yours", "hub": "pulled"}
_SHORT = {"ollama": "Ollama", "lmstudio": "LM Studio", "hub": "hub cache", "llama.cpp": "llama.cpp", "folder": "folder"}


@dataclass(frozen=True)
class Listed:
    """A row. Texts are as files and cards say them: not clean."""

    name: str
    """By which the rest of the program knows it."""
    place: Place
    whose: str
    """In a word or two: built-in, yours, pulled, Ollama, LM Studio, hub cache, llama.cpp, folder, catalog, hub."""
    bytes: int | None = None
    quantization: str = ""
    context: int | None = None
    """Tokens that it was made for."""
    needs: int | None = None
    """Bytes of memory to chat with it, with `n_ctx` tokens of context."""
    n_ctx: int | None = None
    verdict: Verdict = ""
    about: bool = False
    """Whether size and needs are from the number of its weights, for want of its header."""
    adapters: tuple[str, ...] = ()
    """Made for it."""
    path: Path | None = None
    format: str = "gguf"
    repo: str = ""
    owner: str = ""
    """Whose the files are, in words, where another program keeps them."""
    problem: str = ""
    """Why it cannot be used."""
    facts: dict[str, Any] | None = None
    """What its header or its card says: license, languages, tools, thinking, architecture, title, description."""
    labels: tuple[str, ...] = ()
    """Of one of the catalog: what of it is on this machine."""

    @property
    def key(self) -> str:
        return f"{self.place}:{self.name}"

    @property
    def is_ours(self) -> bool:
        """Whether it can be deleted from here."""
        return self.place == "here" and self.whose in ("yours", "pulled")

    def said(self, name: str) -> Any:
        return (self.facts or {}).get(name)


def verdict(needs: int | None, memory: int | None) -> Verdict:
    """Whether so many bytes fit; "tight" where estimate and memory are too near to be sure."""
    if needs is None or memory is None:
        return ""
    if needs <= usable(memory):
        return "fits"
    return "tight" if needs <= memory else "too big"


def free_memory() -> int | None:
    """Bytes available; None where the system does not say."""
    try:
        return available_memory()
    except LocalLLMError:
        return None


def browse(registry: Registry, n_ctx: int | None = None, memory: int | None = None) -> Iterator[list[Listed]]:
    """Rows of what is here, our own first, and of the catalog. Raises ModelError for a broken catalog."""
    memory = free_memory() if memory is None else memory
    yield from here(registry, n_ctx, memory)
    yield from_catalog(registry, memory)


def here(registry: Registry, n_ctx: int | None = None, memory: int | None = None) -> Iterator[list[Listed]]:
    """Rows of the models on this machine."""
    adapters = _Adapters(registry)
    rows = [_own(model) for model in registry.models()] + [_pulled(model) for model in registry.pulled()]
    rows += [_foreign(model) for model in registry.foreign()]
    cache = FactsCache(registry, n_ctx)
    for first in range(0, len(rows), BATCH):
        batch = rows[first : first + BATCH]
        paths = [row.path for row in batch if row.path and row.format == "gguf" and not row.problem]
        facts = dict(zip(paths, cache.of_files(paths), strict=True))
        read = [_completed(row, facts, memory) for row in batch]
        yield [replace(row, adapters=adapters.of(row)) for row in read if row.said("kind") != "adapter"]


def matches(row: Listed, text: str) -> bool:
    """Whether all words stand somewhere in the row."""
    card = row.facts or {}
    said = [row.name, row.whose, row.owner, row.repo, row.quantization, *row.adapters, *row.labels]
    said += [str(card.get(key, "")) for key in ("title", "description", "license", "architecture")]
    said += ["tools"] * bool(card.get("tools")) + ["thinking"] * bool(card.get("thinking"))
    whole = " ".join([*said, *(LANGUAGES.get(code, code) for code in card.get("languages", ()))]).lower()
    return all(word in whole for word in text.lower().split())


def stamp(registry: Registry) -> int:
    """Another number once a model or an adapter came or went, wherever they are kept; only folders are looked at."""
    home = registry.home
    roots = [home.models, home.pulled, home.adapters, *(place.folder for place in registry.places())]
    seen = [(str(home.folders_file), _changed(home.folders_file))]
    for root in roots:
        seen += [(str(folder), _changed(folder)) for folder in _folders(root)]
    return hash(tuple(seen))


# Rows


def _own(model: ModelRef) -> Listed:
    said = {"title": model.title, "description": model.description}
    card = _card_facts(catalog.card(model.name) or {}) if model.source == "built-in" else {}
    facts = {**card, **{key: value for key, value in said.items() if value}}
    return Listed(model.name, "here", _WHOSE[model.source], path=model.path, facts=facts)


def _pulled(model: PulledModel) -> Listed:
    problem = model.problem()
    row = Listed(
        model.full_name, "here", "pulled", model.bytes, path=Path(model.path), format=model.format, repo=model.repo,
        quantization=model.quantization, problem=f"{problem}: fetch it again" if problem else "",
        facts=_card_facts(catalog.card(model.name) or {}),
    )  # fmt: skip
    return replace(row, needs=folder_needs(model.bytes)) if model.format == "mlx" else row


def _foreign(model: ForeignModel) -> Listed:
    row = Listed(
        model.name, "here", _SHORT.get(model.source, model.source), model.bytes, path=model.path, format=model.format,
        owner=owner(model), problem=model.problem, facts={},
    )  # fmt: skip
    if model.format != "mlx" or model.problem:
        return row
    facts = folder_facts(model.path)
    if "error" in facts:
        return replace(row, problem=str(facts["error"]))
    return replace(row, quantization=str(facts["quantization"]), needs=folder_needs(model.bytes), facts=facts)


def _completed(row: Listed, facts: dict[Path, dict[str, Any]], memory: int | None) -> Listed:
    """With what its header says, and the verdict."""
    said = facts.get(row.path) if row.path else None
    if said is None:
        return replace(row, verdict="" if row.problem else verdict(row.needs, memory))
    if "error" in said:
        return replace(row, problem=str(said["error"]))
    card = {key: value for key, value in (row.facts or {}).items() if value not in (None, "", [])}
    return replace(
        row, bytes=row.bytes or said["bytes"], quantization=str(said["quantization"]), context=said.get("context"),
        needs=said.get("needs"), n_ctx=said.get("n_ctx"), verdict=verdict(said.get("needs"), memory),
        facts={**said, **card},
    )  # fmt: skip


def from_catalog(registry: Registry, memory: int | None) -> list[Listed]:
    """Rows of the models that can be had, smallest first. Raises ModelError for a card that cannot be read."""
    labels: dict[str, tuple[str, ...]] = {}
    for model in registry.pulled():
        labels[model.name] = (*labels.get(model.name, ()), model.label)
    cards = [(name, card) for name, card in catalog.cards().items() if "file" not in card]
    cards.sort(key=lambda pair: (pair[1].get("parameters", 0), pair[0]))
    return [_card_row(name, card, labels.get(name, ()), memory) for name, card in cards]


def _card_row(name: str, card: dict[str, Any], labels: tuple[str, ...], memory: int | None) -> Listed:
    gguf = card.get("gguf") or {}
    kind = str(gguf.get("quantization", ""))
    weights = int(card.get("parameters", 0))
    size = _size(weights, kind)
    needs = None if size is None else size + PROCESS + min(10**9, weights * 3 // 2)
    return Listed(
        name, "catalog", "catalog", size, kind, card.get("context"), needs, None, verdict(needs, memory), True,
        repo=str((gguf or card.get("mlx") or {}).get("repo", "")), facts=_card_facts(card), labels=labels,
    )  # fmt: skip


def _size(weights: int, kind: str) -> int | None:
    """About the bytes of a file of so many weights. Mixtures such as Q4_K_M hold some tensors in a larger type."""
    mixed = kind not in BY_NAME
    block = BY_NAME.get(kind.rpartition("_")[0] if mixed else kind)
    return int(weights * block.nbytes / block.weights * (1.08 if mixed else 1)) if block and weights else None


def _card_facts(card: dict[str, Any]) -> dict[str, Any]:
    names = ("title", "description", "license", "languages", "tools", "thinking", "parameters")
    return {name: card[name] for name in names if name in card} | (
        {"mlx_repo": card["mlx"]["repo"]} if "repo" in card.get("mlx", {}) else {}
    )


class _Adapters:
    """Which adapters say that they were made for a model; their manifests are read once."""

    def __init__(self, registry: Registry) -> None:
        self._bases: list[tuple[str, Any, Any]] = []
        for adapter in registry.adapters():
            try:
                base = registry.manifest(adapter).get("base", {})
            except LocalLLMError:  # then it is of no model
                continue
            self._bases.append((adapter.name, base.get("name"), base.get("path")))

    def of(self, row: Listed) -> tuple[str, ...]:
        path = str(row.path.resolve()) if row.path else None
        return tuple(name for name, base, where in self._bases if base == row.name or (where and where == path))


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _folders(root: Path) -> Sequence[Path]:
    """The folder and those below it, as deep as models lie."""
    found, level = [root], [root]
    for _ in range(_DEPTH):
        below: list[Path] = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    below += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
            except OSError:
                continue
            if len(found) + len(below) > _MOST_FOLDERS:
                return found + below
        found, level = found + below, below
    return found


LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "en": "English", "es": "Spanish", "fi": "Finnish",
    "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "it": "Italian", "ja": "Japanese",
    "ko": "Korean", "mul": "many more", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese",
    "ru": "Russian", "sv": "Swedish", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "zh": "Chinese",
}  # fmt: skip
"""What the codes of cards and headers stand for."""
