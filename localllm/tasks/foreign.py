"""Adapters wherever they come from, as ours: folders of localllm, of mlx-lm and of PEFT, and GGUF LoRAs.

Nothing of a folder is run: weights are safetensors or GGUF, settings are JSON, and a pickle is refused by its name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.engine.adapters import check_adapter
from localllm.errors import AdapterError, AdapterNotFoundError
from localllm.store.registry import MANIFEST, Registry
from localllm.tasks.opening import BASE_HASH_KEY
from localllm.types import ModelRef
from localllm.weights import mlx_lm, peft
from localllm.weights.adapter import CONFIG, GGUF_NAME, WEIGHTS, Adapter, read_folder
from localllm.weights.gguf import MAGIC, GGUFFile, read_header
from localllm.weights.lora import check_fit, read_gguf, shares_output

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_EXPECTED = (
    f"An adapter is a GGUF LoRA, or a folder with {CONFIG} and {WEIGHTS} (mlx-lm) or {peft.WEIGHTS} (PEFT) in it."
)


@dataclass(frozen=True)
class Found:
    """An adapter that was read, as ours, and checked against its base."""

    adapter: Adapter
    format: str
    """ "localllm", "mlx-lm", "peft" or "gguf"."""
    files: dict[str, str]
    """Name of each file that was read -> SHA-256."""
    notes: tuple[str, ...]
    """What had to be assumed, in sentences."""
    gguf: Path | None = None
    """The file itself, of a GGUF LoRA."""

    @property
    def source(self) -> dict[str, Any]:
        """For the manifest: the format, the files, and one hash over all of them."""
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.files.items()))
        return {"format": self.format, "files": self.files, "sha256": hashlib.sha256(lines.encode()).hexdigest()}


def read_foreign(registry: Registry, path: Path, model: ModelRef, base: GGUFFile) -> Found:
    """Recognize, read and check an adapter for a base. `base` is the header of `model`.

    Raises AdapterNotFoundError when nothing is there, AdapterError for what cannot be used, with the reason, and
    AdapterMismatchError, naming the tensor and both shapes, for what does not fit the base.
    """
    kind, files = _recognize(path)
    notes: list[str] = []
    made_for: object = None
    if kind == "gguf":
        check_adapter(files[0], base, attached=False)
        adapter = read_gguf(files[0], base)
        made_for = read_header(files[0]).metadata.get(BASE_HASH_KEY)
    elif kind == "localllm":
        adapter, made_for = read_folder(path), _base_hash(path / MANIFEST)
    else:
        adapter, notes = mlx_lm.read(path) if kind == "mlx-lm" else peft.read(path, base)
    check_fit(adapter, base)
    if isinstance(made_for, str) and made_for != (actual := registry.sha256(model.path)):
        notes.append(
            f"It was made for other bytes than those of {model.name} (content hash {made_for[:12]}, not {actual[:12]})."
        )
    hashes = {file.name: registry.sha256(file) for file in files}
    return Found(adapter, kind, hashes, tuple(notes), files[0] if kind == "gguf" else None)


def require_attachable(adapter: Adapter, base: GGUFFile, what: str, model: str) -> None:
    """Raises AdapterError with the command for the merge, unless llama.cpp can attach such an adapter to the base."""
    if shares_output(adapter, base):
        raise not_attachable(what, base, model)


def not_attachable(what: str, base: GGUFFile, model: str) -> AdapterError:
    """The error for an adapter on an embedding that is the output too, with the command for the merge."""
    return AdapterError(
        f"{what} changes the token embedding, which {base.path.name} shares with its output; llama.cpp cannot attach "
        "that.",
        f"Merge it instead: localllm export {what} --model {model} --to merged --out FILE.gguf",
    )


def _recognize(path: Path) -> tuple[str, list[Path]]:
    """What is there, and the files that will be read."""
    if path.is_dir():
        return _recognize_folder(path)
    if not path.exists():
        raise AdapterNotFoundError(f"There is no file or folder {path}.", "Check the path.")
    if path.suffix in PICKLES:
        message = f"{path} is a pickle, which can run any program when it is opened."
        raise AdapterError(message, "Save the adapter as safetensors where you trust it.")
    if path.suffix == ".safetensors":
        raise AdapterError(f"{path} needs the {CONFIG} beside it.", f"Name the folder: {path.parent}.")
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror or error}.") from error
    if magic != MAGIC:
        raise AdapterError(f"{path} is no adapter that localllm knows.", _EXPECTED)
    return "gguf", [path]


def _recognize_folder(path: Path) -> tuple[str, list[Path]]:
    config = path / CONFIG
    if (path / MANIFEST).is_file() and (path / WEIGHTS).is_file():
        return "localllm", [path / WEIGHTS, config]
    if (path / WEIGHTS).is_file() or (path / "adapters.npz").is_file():
        return "mlx-lm", [file for file in (path / WEIGHTS, config) if file.is_file()]
    if (path / peft.WEIGHTS).is_file() or (path / peft.PICKLE).is_file():
        return "peft", [file for file in (path / peft.WEIGHTS, config) if file.is_file()]
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1 or path / GGUF_NAME in ggufs:
        return "gguf", [path / GGUF_NAME if len(ggufs) > 1 else ggufs[0]]
    many = f" It holds {len(ggufs)} GGUF files: name one of them." if ggufs else ""
    raise AdapterError(f"{path} holds no adapter that localllm knows.", _EXPECTED + many)


def _base_hash(manifest: Path) -> object:
    try:
        return json.loads(manifest.read_text("utf-8"))["base"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
