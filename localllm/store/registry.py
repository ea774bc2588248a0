"""Names to files: models and adapters on this machine.

A model is the built-in one, a GGUF in <home>/models, one that was pulled (pulled.py), one that another program keeps
(foreign/), or a path. An adapter is a folder <home>/adapters/NAME with adapter.gguf and adapter.json, or a path to a
GGUF LoRA or to such a folder. adapter.json is written last, so that a folder without one is not an adapter.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from localllm.errors import AdapterError, AdapterMismatchError, AdapterNotFoundError, ModelNotFoundError, StorageError
from localllm.paths import Home
from localllm.store import catalog
from localllm.store.foreign.added import added_folders
from localllm.store.foreign.find import find_foreign, foreign_models, is_foreign, reference
from localllm.store.foreign.model import ForeignModel
from localllm.store.foreign.places import Place, places
from localllm.store.hashes import FileCache, HashCache
from localllm.store.pulled import PulledModel, find_pulled, pulled_models, write_manifest
from localllm.types import AdapterRef, ModelRef

ADAPTER_FILE = "adapter.gguf"
MANIFEST = "adapter.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(:[\w.-]+)?")


class Registry:
    """What `LOCALLLM_HOME` and the package hold, by name."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._hashes = HashCache(home.cache / "hashes.json")
        self.headers = FileCache(home.cache / "headers.json")
        """What the headers of models say, as far as `localllm list` shows it."""

    # Models

    def model(self, name_or_path: str) -> ModelRef:
        """Resolve a model. Raises ModelNotFoundError with the nearest names."""
        if not name_or_path.strip():
            raise ModelNotFoundError("The model has no name.", "`localllm list` shows those there are.")
        if "/" not in name_or_path and (found := self._named_model(name_or_path)):
            return found
        path = Path(name_or_path).expanduser()
        if path.exists():
            return ModelRef(path.stem, path, "path")
        if pulled := self._pulled_model(name_or_path):
            return pulled
        if found := self._foreign_model(name_or_path):
            return found
        if "/" in name_or_path or name_or_path.endswith(".gguf"):
            hint = "Check the path, or see `localllm list`."
            if _REPO.fullmatch(name_or_path):
                hint = f"See `localllm list`; if it is on the hub: localllm pull {name_or_path}"
            raise ModelNotFoundError(f"There is no file {name_or_path}.", hint)
        if catalog.card(name_or_path.partition(":")[0]):
            message = f"The model {name_or_path} is not on this machine yet."
            raise ModelNotFoundError(message, f"Fetch it: localllm pull {name_or_path}")
        names = [*(model.name for model in self.models()), *(m.full_name for m in self.pulled())]
        if is_foreign(name_or_path):
            names = [model.name for model in self.foreign()]
        raise ModelNotFoundError(f"There is no model named {name_or_path!r}.", _suggest(name_or_path, names, "models"))

    def _named_model(self, name: str) -> ModelRef | None:
        if found := catalog.builtin(name):
            return found
        path = self.home.models / f"{name}.gguf"
        return ModelRef(name, path, "home") if path.is_file() else None

    def _pulled_model(self, text: str) -> ModelRef | None:
        """One that was pulled; a card knows which quantization it means. Raises ModelNotFoundError when it is gone."""
        card = catalog.card(text) or {}
        found = find_pulled(self.home.pulled, text, str(card.get("gguf", {}).get("quantization", "")))
        return None if found is None else _reference(found)

    def _foreign_model(self, text: str) -> ModelRef | None:
        """One of another program. Raises ModelNotFoundError where several are meant, InvalidModelError."""
        found = find_foreign(self.foreign(), text)
        return None if found is None else reference(found)

    def places(self) -> list[Place]:
        """Where other programs keep models, and the folders that were added."""
        return places(os.environ, Path.home(), sys.platform, added_folders(self.home.folders_file))

    def foreign(self) -> list[ForeignModel]:
        """Every model of other programs, but those in the hub's cache that were pulled from here."""
        ours = {Path(model.path) for model in self.pulled()}
        return [model for model in foreign_models(self.places()) if model.path not in ours]

    def pulled(self) -> list[PulledModel]:
        """Every model that was pulled, by name."""
        return pulled_models(self.home.pulled)

    def add_pulled(self, model: PulledModel) -> ModelRef:
        """Register a model whose files are complete and verified. Raises StorageError."""
        write_manifest(self.home.pulled, model)
        return _reference(model)

    def models(self) -> list[ModelRef]:
        """The built-in model and every GGUF in <home>/models, by name."""
        found = [r for name, card in catalog.cards().items() if "file" in card and (r := catalog.builtin(name))]
        if self.home.models.is_dir():
            found += [ModelRef(p.stem, p, "home") for p in sorted(self.home.models.glob("*.gguf"))]
        return found

    def sha256(self, path: Path) -> str:
        """Hex SHA-256 of a file, or of the names and hashes of an MLX folder's, remembered until they change."""
        if not path.is_dir():
            return self._hashes.sha256(path)
        files = sorted(file for pattern in ("*.json", "*.jinja", "*.safetensors") for file in path.glob(pattern))
        lines = "".join(f"{self._hashes.sha256(file)}  {file.name}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()

    def known_sha256(self, path: Path) -> str:
        """The hash of a file as far as it is remembered; nothing is read."""
        return str(self._hashes.known(path) or "")

    def remember_sha256(self, path: Path, digest: str) -> None:
        """The hash of a file that was verified while it was written."""
        self._hashes.remember(path, digest)

    # Adapters

    def adapter(self, name_or_path: str) -> AdapterRef:
        """Resolve an adapter. Raises AdapterNotFoundError with the nearest names."""
        if "/" not in name_or_path and self.manifest_path(name_or_path).is_file():
            return self._from_folder(self.adapter_dir(name_or_path))
        path = Path(name_or_path).expanduser()
        if (path / MANIFEST).is_file():
            return self._from_folder(path)
        if path.is_file():
            return AdapterRef(path.stem, path)
        if path.is_dir():
            raise AdapterNotFoundError(f"{path} is a folder without {MANIFEST}.", "Name an adapter or a GGUF LoRA.")
        if "/" in name_or_path or name_or_path.endswith(".gguf"):
            raise AdapterNotFoundError(
                f"There is no file {name_or_path}.", "Check the path; `localllm list` shows names."
            )
        names = [adapter.name for adapter in self.adapters()]
        hint = _suggest(name_or_path, names, "adapters")
        raise AdapterNotFoundError(f"There is no adapter named {name_or_path!r}.", hint)

    def adapter_for(self, name_or_path: str, model: ModelRef) -> AdapterRef:
        """Resolve an adapter and check that it was made for this model's very bytes. Raises AdapterMismatchError."""
        adapter = self.adapter(name_or_path)
        if adapter.base_sha256:
            self.check_base(adapter, adapter.base_sha256, model)
        return adapter

    def check_base(self, adapter: AdapterRef, base_sha256: str, model: ModelRef) -> None:
        """Raises AdapterMismatchError unless the model's file has that content hash."""
        if base_sha256 != (actual := self.sha256(model.path)):
            base = self.manifest(adapter).get("base", {}).get("name", "another model")
            raise AdapterMismatchError(
                f"The adapter {adapter.name!r} was made for {base} (content hash {base_sha256[:12]}), "
                f"not for this {model.name} ({actual[:12]}).",
                "Use it with that model, or fine-tune one for this.",
            )

    def adapters(self) -> list[AdapterRef]:
        """Every complete adapter in <home>/adapters, by name; also those whose manifest cannot be read any more, which
        `manifest` says.
        """
        folder = self.home.adapters
        if not folder.is_dir():
            return []
        manifests = sorted(folder.glob(f"*/{MANIFEST}"))
        return [self._listed(m.parent) for m in manifests if _NAME.fullmatch(m.parent.name)]

    def manifest(self, adapter: AdapterRef) -> dict[str, Any]:
        """What adapter.json says; empty for a bare file."""
        path = adapter.path.parent / MANIFEST
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as e:
            raise AdapterError(f"{path} cannot be read: {e}.", "Remove that folder and fine-tune again.") from e
        return content if isinstance(content, dict) else {}

    def adapter_dir(self, name: str) -> Path:
        """The folder of the adapter of that name, whether it exists or not. Raises AdapterError for a bad name."""
        if not _NAME.fullmatch(name):
            raise AdapterError(
                f"{name!r} cannot be an adapter's name.", "Use letters, digits, dots, hyphens and underscores."
            )
        return self.home.adapters / name

    def manifest_path(self, name: str) -> Path:
        return self.home.adapters / name / MANIFEST if _NAME.fullmatch(name) else self.home.adapters / ".none"

    def publish_adapter(self, name: str, staging: Path) -> AdapterRef:
        """Rename a finished staging folder (its manifest written last) to the adapter's place, replacing what is there.

        Raises StorageError; the folder that was there is then still in place.
        """
        if not (staging / MANIFEST).is_file():
            raise AdapterError(f"{staging} has no {MANIFEST}.", "The adapter is not finished.")
        final = self.adapter_dir(name)
        old = final.with_name(f".{name}.replaced-{os.getpid()}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():
                os.rename(final, old)
            try:
                os.rename(staging, final)
            except OSError:
                if old.exists():
                    os.rename(old, final)
                raise
        except OSError as e:
            raise StorageError(f"Cannot write {final} ({e.strerror}).", "Check permissions and free space.") from e
        shutil.rmtree(old, ignore_errors=True)
        return self._from_folder(final)

    def _listed(self, folder: Path) -> AdapterRef:
        try:
            return self._from_folder(folder)
        except AdapterError:
            return AdapterRef(folder.name, folder / ADAPTER_FILE)

    def _from_folder(self, folder: Path) -> AdapterRef:
        ref = AdapterRef(folder.name, folder / ADAPTER_FILE)
        base = self.manifest(ref).get("base", {}).get("sha256")
        return AdapterRef(folder.name, folder / ADAPTER_FILE, base)


def _reference(model: PulledModel) -> ModelRef:
    reference = ModelRef(model.full_name, Path(model.path), "hub")
    card = catalog.card(model.name)
    return catalog.described(reference, card) if card else reference


def _suggest(name: str, names: list[str], what: str) -> str:
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"There are: {', '.join(names)}." if names else f"There are no {what} yet."
