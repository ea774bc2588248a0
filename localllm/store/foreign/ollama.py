"""Ollama's store: a manifest for each name, and what it is made of as blobs named by their hashes.

    manifests/HOST/NAMESPACE/MODEL/TAG      JSON: {"layers": [{"mediaType": ..., "digest": "sha256:...", "size": ...}]}
    blobs/sha256-...                        the GGUF itself, adapters, the system prompt, parameters, the template

Names leave out what Ollama leaves out: the host registry.ollama.ai and the namespace "library".
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from localllm.store.foreign.model import ForeignModel, clean

_HOST, _LIBRARY = "registry.ollama.ai", "library"
_KINDS = "application/vnd.ollama.image."
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_MAX_MANIFEST, _MAX_TEXT = 1 << 20, 1 << 20
_MAX_MODELS = 10_000
_SAMPLING = {
    "temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p", "seed": "seed",
    "repeat_penalty": "repeat_penalty", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty", "repeat_last_n": "penalty_last_n", "num_predict": "max_tokens",
}  # fmt: skip
"""Ollama's parameters that mean here the same, by the fields of `types.Sampling`."""
_WHOLE = ("top_k", "seed", "penalty_last_n", "max_tokens")
_TEMPLATES = {"<|im_start|>": "chatml", "<|start_header_id|>": "llama3", "<start_of_turn>": "gemma"}
"""What only the templates of one family write -> our template of that name."""


@dataclass(frozen=True)
class Settings:
    """What a model of Ollama brings besides its weights, as far as it can be used here."""

    system: str = ""
    sampling: dict[str, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    template: str = ""
    """The name of one of our templates, for a GGUF that holds none itself."""
    adapters: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    """What is left out, in sentences."""


def in_ollama(root: Path) -> list[ForeignModel]:
    """Every model that has a manifest, broken ones with the reason; sorted by name."""
    found: list[ForeignModel] = []
    base = root / "manifests"
    for place, folders, names in os.walk(base):
        folders.sort()
        inside = Path(place).relative_to(base).parts
        found += [_model(root, (*inside, name), Path(place) / name) for name in sorted(names) if name[:1] != "."]
        if len(found) > _MAX_MODELS:
            break
    return sorted(found, key=lambda model: model.short.lower())


def settings(model: ForeignModel) -> Settings:
    """Read the small layers of a model; what cannot be used becomes a note."""
    notes: list[str] = []
    system = template = ""
    adapters: list[Path] = []
    sampling: dict[str, float] = {}
    stop: tuple[str, ...] = ()
    for kind, path in model.layers:
        if kind == "adapter":
            adapters.append(path)
        elif kind == "system":
            system = _text(path, "system prompt", notes)
        elif kind == "params":
            sampling, stop = _parameters(_text(path, "parameters", notes), notes)
        elif kind == "template":
            template = _template(_text(path, "template", notes))
        elif kind == "messages":
            notes.append("The example conversation that Ollama would put before each chat is left out.")
        elif kind == "projector":
            notes.append("It could look at pictures; here it reads text only.")
    if not template and any(kind == "template" for kind, _ in model.layers):
        notes.append("Ollama's chat template is written in Go's language and left out; the GGUF's own is used.")
    return Settings(system, sampling, stop, template, tuple(adapters), tuple(notes))


def _model(root: Path, inside: tuple[str, ...], manifest: Path) -> ForeignModel:
    short, aliases = _names([clean(part) for part in inside])
    try:
        layers = _layers(root, manifest)
    except ValueError as error:
        return ForeignModel("ollama", short, manifest, problem=str(error), aliases=aliases)
    weights = [layer for layer in layers if layer.kind == "model"]
    if len(weights) != 1:
        problem = "it is in several pieces, which is a format of Ollama's own" if layers else "its manifest is empty"
        if layers and not weights:
            problem = "it has no GGUF: it runs elsewhere, or is in a format of Ollama's own"
        return ForeignModel("ollama", short, manifest, problem=problem, aliases=aliases)
    size = sum(layer.size for layer in layers)
    problem = next((said for layer in layers if (said := layer.problem())), "")
    others = tuple((layer.kind, layer.path) for layer in layers if layer.kind != "model")
    return ForeignModel("ollama", short, weights[0].path, "gguf", size, problem, aliases, others)


def _names(inside: list[str]) -> tuple[str, tuple[str, ...]]:
    """What Ollama calls it, and without the tag where that is "latest"."""
    *above, tag = inside
    if above[:1] == [_HOST]:
        above = above[1:]
        if above[:1] == [_LIBRARY]:
            above = above[1:]
    base = "/".join(above)
    return f"{base}:{tag}", (base,) if tag == "latest" else ()


@dataclass(frozen=True)
class _Layer:
    kind: str
    path: Path
    size: int

    def problem(self) -> str:
        try:
            actual = self.path.stat().st_size
        except OSError:
            return f"its {self.kind} is missing ({self.path.name[:19]}…)"
        return "" if actual == self.size else f"its {self.kind} has {actual} bytes, not {self.size}"


def _layers(root: Path, manifest: Path) -> list[_Layer]:
    """Raises ValueError with half a sentence on what is wrong with the manifest."""
    try:
        if manifest.stat().st_size > _MAX_MANIFEST:
            raise ValueError("its manifest is too large to be one")
        said = json.loads(manifest.read_bytes())
    except OSError as error:
        raise ValueError(f"its manifest cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and str(error).startswith("its "):
            raise
        raise ValueError("its manifest is not JSON") from error
    layers = said.get("layers") if isinstance(said, dict) else None
    if not isinstance(layers, list):
        raise ValueError("its manifest has no layers")
    return [_layer(root, entry) for entry in layers]


def _layer(root: Path, entry: Any) -> _Layer:
    if not isinstance(entry, dict):
        raise ValueError("its manifest has a layer that is none")
    digest, size = _DIGEST.fullmatch(str(entry.get("digest"))), entry.get("size")
    if digest is None:
        raise ValueError("its manifest names a file by what is no hash")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError("its manifest has a layer without a size")
    blobs = root / "blobs"
    path = blobs / f"sha256-{digest[1]}"
    if not path.exists() and (older := blobs / f"sha256:{digest[1]}").exists():
        path = older
    return _Layer(str(entry.get("mediaType", "")).removeprefix(_KINDS)[:40], path, size)


def _text(path: Path, what: str, notes: list[str]) -> str:
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise ValueError
        return path.read_text("utf-8")
    except (OSError, ValueError):
        notes.append(f"Ollama's {what} cannot be read and is left out.")
        return ""


def _parameters(text: str, notes: list[str]) -> tuple[dict[str, float], tuple[str, ...]]:
    """(settings, stop sequences) from the JSON of Ollama's parameters."""
    try:
        said = json.loads(text or "{}")
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        notes.append("Ollama's parameters are not JSON and are left out.")
        return {}, ()
    sampling: dict[str, float] = {}
    left = []
    for key, value in said.items():
        name = _SAMPLING.get(key)
        if name and isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
            sampling[name] = int(value) if name in _WHOLE else float(value)
        elif key != "stop":
            left.append(clean(str(key))[:40])
    if left:
        notes.append(f"Ollama's parameters {', '.join(sorted(left)[:8])} are left out.")
    stop = said.get("stop", [])
    stop = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    return sampling, tuple(text for text in stop if isinstance(text, str) and text)


def _template(text: str) -> str:
    return next((name for mark, name in _TEMPLATES.items() if mark in text), "")
