"""Where other programs keep their models, by their own variables and settings. Pure but for LM Studio's settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A folder, and whose it is (a key of `model.OWNERS`)."""

    source: str
    folder: Path


def places(environ: Mapping[str, str], home: Path, platform: str, added: list[Path]) -> list[Place]:
    """Every place to look, whether it exists or not; `home` is the person's, `added` what they named themselves."""
    found = [Place("ollama", folder) for folder in _ollama(environ, home)]
    found += [Place("lmstudio", folder) for folder in _lm_studio(home)]
    found.append(Place("hub", hub_cache(environ, home)))
    found.append(Place("llama.cpp", _llama_cpp(environ, home, platform)))
    return [*found, *(Place("folder", folder) for folder in added)]


def hub_cache(environ: Mapping[str, str], home: Path) -> Path:
    """As huggingface_hub finds it, without importing that."""
    if said := environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(said).expanduser()
    base = environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(environ.get("HF_HOME") or Path(base) / "huggingface").expanduser() / "hub"


def _ollama(environ: Mapping[str, str], home: Path) -> list[Path]:
    """OLLAMA_MODELS, else the person's own and the one of Linux's service."""
    if said := environ.get("OLLAMA_MODELS"):
        return [Path(said).expanduser()]
    return [home / ".ollama/models", Path("/usr/share/ollama/.ollama/models")]


def _lm_studio(home: Path) -> list[Path]:
    """Both places it has had, and the folder that its settings name."""
    bases = [home / ".lmstudio", home / ".cache/lm-studio"]
    said = [folder for base in bases if (folder := _downloads_folder(base / "settings.json"))]
    unique = dict.fromkeys([*said, *(base / "models" for base in bases)])
    return list(unique)


def _downloads_folder(settings: Path) -> Path | None:
    try:
        said = json.loads(settings.read_text("utf-8")).get("downloadsFolder")
        return Path(said) if isinstance(said, str) and Path(said).is_absolute() else None
    except (OSError, ValueError, AttributeError):
        return None


def _llama_cpp(environ: Mapping[str, str], home: Path, platform: str) -> Path:
    if said := environ.get("LLAMA_CACHE"):
        return Path(said).expanduser()
    if platform == "darwin":
        return home / "Library/Caches/llama.cpp"
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "llama.cpp"
