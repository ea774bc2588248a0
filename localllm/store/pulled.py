"""Models that were pulled: a manifest each in <home>/pulled, written when the files were complete and verified.

The files lie in the hub's cache, which other programs share and may tidy up; the manifest says where and how large.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from localllm.errors import ModelNotFoundError
from localllm.store.files import write_atomically

_ADDRESSES = ("https://", "http://", "huggingface.co/", "www.huggingface.co/", "hf.co/", "hf://")


@dataclass(frozen=True)
class PulledModel:
    """A model of the hub whose files are here."""

    name: str
    """The card's name, or owner/repo."""
    label: str
    """What tells it from others of that name: a quantization, or "mlx"."""
    format: str
    """ "gguf" or "mlx"."""
    repo: str
    revision: str
    commit: str
    path: str
    """The file to open, the first of several parts, or the folder."""
    files: tuple[tuple[str, int, str], ...]
    """Path within the repository, bytes and hash of each file."""
    architecture: str
    quantization: str
    """Of the weights, as `list` shows it."""

    @property
    def full_name(self) -> str:
        return f"{self.name}:{self.label}"

    @property
    def bytes(self) -> int:
        return sum(size for _, size, _ in self.files)

    def names(self) -> set[str]:
        """All that it can be called, in small letters."""
        own = {self.full_name, f"{self.repo}:{self.label}"}
        files = {f"{self.repo}/{path}" for path, _, _ in self.files} if self.format == "gguf" else set()
        return {name.lower() for name in own | files}

    def problem(self) -> str:
        """Why it cannot be used, or nothing: its files may have been removed since."""
        folder = Path(self.path)
        if self.format == "gguf":
            folder = folder.parents[len(Path(self.files[0][0]).parts) - 1]
        for path, size, _ in self.files:
            try:
                if (folder / path).stat().st_size != size:
                    return f"{path} has changed since it was pulled"
            except OSError:
                return f"{path} is no longer in the hub's cache"
        return ""


def pulled_models(folder: Path) -> list[PulledModel]:
    """Those that have a manifest that can be read, by name."""
    found = [model for path in sorted(folder.glob("*.json")) if (model := _read(path))]
    return sorted(found, key=lambda model: (model.full_name.lower(), model.repo))


def find_pulled(folder: Path, text: str, preferred: str = "") -> PulledModel | None:
    """The model that a person means: by its name with or without the label, its repository, its file or its address.

    Without a label it is the one labelled `preferred`, else a GGUF, and the largest. Raises ModelNotFoundError for one
    whose files are gone.
    """
    wanted = text.lower().removesuffix("/")
    for start in _ADDRESSES:
        wanted = wanted.removeprefix(start)
    models = pulled_models(folder)
    found = [model for model in models if wanted in model.names()]
    found = found or [model for model in models if wanted in (model.name.lower(), model.repo.lower())]
    if not found:
        return None
    best = max(found, key=lambda m: (m.label.lower() == preferred.lower(), m.format == "gguf", m.bytes))
    if problem := best.problem():
        again = f"localllm pull {best.repo if best.format == 'mlx' else best.full_name}"
        raise ModelNotFoundError(f"{best.full_name} is incomplete: {problem}.", f"Fetch it again: {again}")
    return best


def write_manifest(folder: Path, model: PulledModel) -> Path:
    """The last step of a pull. Raises StorageError."""
    path = manifest_of(folder, model)
    write_atomically(path, json.dumps(asdict(model), indent=2).encode() + b"\n")
    return path


def manifest_of(folder: Path, model: PulledModel) -> Path:
    """Where the manifest of a model lies."""
    name = "--".join((*model.repo.split("/"), model.label.replace("/", "--")))
    return folder / f"{name}.json"


def _read(path: Path) -> PulledModel | None:
    try:
        said: dict[str, Any] = json.loads(path.read_text("utf-8"))
        files = tuple((str(name), int(size), str(digest)) for name, size, digest in said.pop("files"))
        texts = {key: str(value) for key, value in said.items()}
        return PulledModel(files=files, **texts) if files else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # of another version, or damaged: pulling again writes it anew
