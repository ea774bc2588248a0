"""What is on this machine, a row for each: models, adapters, and models of other programs.

Headers are remembered by size and time, so that a listing opens only what is new; nothing is hashed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from localllm.errors import AdapterError, InvalidModelError, ModelNotFoundError
from localllm.store.foreign.find import owner
from localllm.store.foreign.model import ForeignModel
from localllm.store.pulled import PulledModel
from localllm.store.registry import MANIFEST, Registry
from localllm.types import AdapterRef, ModelRef


def list_models(registry: Registry) -> list[dict[str, Any]]:
    """One row for each model; one that cannot be used has `error` instead of what its header says."""
    models = registry.models()
    facts = _facts(registry, [model.path for model in models])
    rows = [{"name": m.name, "source": m.source, "path": str(m.path), **f} for m, f in zip(models, facts, strict=True)]
    return rows + [_pulled_row(model) for model in registry.pulled()]


def list_foreign(registry: Registry) -> list[dict[str, Any]]:
    """One row for each model that another program keeps, broken ones with `error`; adapters among them are left out."""
    models = registry.foreign()
    whole = [model for model in models if not model.problem]
    files = [model.path for model in whole if model.format == "gguf"]
    facts = dict(zip(files, _facts(registry, files), strict=True))
    facts |= {model.path: folder_facts(model.path) for model in whole if model.format == "mlx"}
    rows = [_foreign_row(model, facts.get(model.path, {})) for model in models]
    return [row for row in rows if row.pop("kind", "") != "adapter"]


def list_adapters(registry: Registry) -> list[dict[str, Any]]:
    """One row for each adapter, with its base and whether it was verified."""
    return [_adapter_row(registry, adapter) for adapter in registry.adapters()]


def adapters_of(registry: Registry, model: ModelRef) -> list[str]:
    """Names of the adapters that say they were made for this model's very file, by its name or where it lies."""
    found = []
    for adapter in registry.adapters():
        try:
            base = registry.manifest(adapter).get("base", {})
        except AdapterError:  # then it is of no model
            continue
        if base.get("name") == model.name or base.get("path") == str(model.path.resolve()):
            found.append(adapter.name)
    return found


def folder_facts(folder: Path) -> dict[str, Any]:
    """What `list` shows of an MLX folder, from its configuration alone; `error` where that cannot be read."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        said = config.get("quantization") or {}
        kind = config.get("torch_dtype") or config.get("dtype") or "floats"
        bits = f"{int(said['bits'])}-bit groups" if said else str(kind)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        return {"bytes": size, "architecture": str(config.get("model_type", "?"))[:40], "quantization": bits[:40]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"error": "its config.json cannot be read"}


def _facts(registry: Registry, paths: list[Path]) -> list[dict[str, Any]]:
    try:
        return registry.headers.values(paths, _facts_of)
    except OSError:  # a file that went while it was looked at
        return [_facts_of(path) for path in paths]


def _facts_of(path: Path) -> dict[str, Any]:
    from localllm.tasks.inventory import header_facts
    from localllm.weights.parts import read_model

    try:
        return header_facts(read_model(path))
    except (InvalidModelError, ModelNotFoundError) as e:
        return {"error": e.message}


def _pulled_row(model: PulledModel) -> dict[str, Any]:
    """From the manifest: the files are looked for, but not opened."""
    row = {"name": model.full_name, "source": "hub", "path": model.path, "repo": model.repo, "format": model.format}
    if problem := model.problem():
        return {**row, "error": f"{problem}: localllm pull {model.repo}"}
    facts = {"bytes": model.bytes, "architecture": model.architecture, "quantization": model.quantization}
    return {**row, **facts}


def _foreign_row(model: ForeignModel, facts: dict[str, Any]) -> dict[str, Any]:
    row = {"name": model.name, "source": model.source, "path": str(model.path), "format": model.format}
    row["owner"] = owner(model)
    if model.problem:
        return {**row, "error": model.problem}
    return {**row, **facts} if "error" in facts else {**row, **facts, "bytes": model.bytes}


def _adapter_row(registry: Registry, adapter: AdapterRef) -> dict[str, Any]:
    try:
        manifest = registry.manifest(adapter)
    except AdapterError:
        return {"name": adapter.name, "path": str(adapter.path), "error": f"its {MANIFEST} cannot be read"}
    verified = manifest.get("verify", {})
    return {
        "name": adapter.name,
        "path": str(adapter.path),
        "bytes": adapter.path.stat().st_size if adapter.path.is_file() else 0,
        "base": manifest.get("base", {}).get("name"),
        "verified": verified.get("passed"),
    }
