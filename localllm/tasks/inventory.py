"""What is on this machine: models, adapters, and everything about one of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from localllm.errors import AdapterNotFoundError, InvalidModelError, ModelError, ModelNotFoundError
from localllm.store.pulled import PulledModel
from localllm.store.registry import Registry
from localllm.types import AdapterRef, ModelRef
from localllm.weights.config import model_config
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.parts import part_paths, read_model


def list_models(registry: Registry) -> list[dict[str, Any]]:
    """One row for each model; one that cannot be used has `error` instead of what its header says."""
    models = registry.models()
    try:
        facts = registry.headers.values((model.path for model in models), _facts_of)
    except OSError:  # a file that went while it was looked at
        facts = [_facts_of(model.path) for model in models]
    rows = [{"name": m.name, "source": m.source, "path": str(m.path), **f} for m, f in zip(models, facts, strict=True)]
    return rows + [_pulled_row(model) for model in registry.pulled()]


def list_adapters(registry: Registry) -> list[dict[str, Any]]:
    """One row for each adapter, with its base and whether it was verified."""
    return [_adapter_row(registry, adapter) for adapter in registry.adapters()]


def show(registry: Registry, name: str) -> dict[str, Any]:
    """Everything about the model or adapter of that name or path. Raises ModelNotFoundError when there is neither."""
    try:
        return _show_adapter(registry, registry.adapter(name))
    except (AdapterNotFoundError, InvalidModelError):
        pass  # then it is a model, or its error is the one to show
    try:
        model = registry.model(name)
    except ModelNotFoundError as e:
        names = [adapter.name for adapter in registry.adapters()]
        hint = f"{e.hint} Adapters: {', '.join(names)}." if names else e.hint
        raise ModelNotFoundError(f"There is no model or adapter {name!r}.", hint) from e
    return _show_model(registry, model)


def _facts_of(path: Path) -> dict[str, Any]:
    try:
        return header_facts(read_header(path))
    except (InvalidModelError, ModelNotFoundError) as e:
        return {"error": e.message}


def header_facts(file: GGUFFile) -> dict[str, Any]:
    """What `list` shows of a header."""
    return {"bytes": file.size, "architecture": file.architecture, "quantization": _quantization(file)}


def _pulled_row(model: PulledModel) -> dict[str, Any]:
    """From the manifest: the files are looked for, but not opened."""
    row = {"name": model.full_name, "source": "hub", "path": model.path, "repo": model.repo, "format": model.format}
    if problem := model.problem():
        return {**row, "error": f"{problem}: localllm pull {model.repo}"}
    facts = {"bytes": model.bytes, "architecture": model.architecture, "quantization": model.quantization}
    return {**row, **facts}


def _adapter_row(registry: Registry, adapter: AdapterRef) -> dict[str, Any]:
    manifest = registry.manifest(adapter)
    verified = manifest.get("verify", {})
    return {
        "name": adapter.name,
        "path": str(adapter.path),
        "bytes": adapter.path.stat().st_size if adapter.path.is_file() else 0,
        "base": manifest.get("base", {}).get("name"),
        "verified": verified.get("passed"),
    }


def _show_model(registry: Registry, model: ModelRef) -> dict[str, Any]:
    pulled = next((p for p in registry.pulled() if Path(p.path) == model.path), None)
    if pulled and pulled.format == "mlx":
        return _show_folder(model, pulled)
    file = read_model(model.path)
    if file.kind == "adapter":
        return _show_adapter(registry, registry.adapter(str(model.path)))
    prefix = file.architecture
    return {
        "kind": "model",
        "name": model.name,
        "title": model.title or file.metadata.get("general.name", model.name),
        "description": model.description,
        "source": model.source,
        "path": str(model.path),
        "sha256": registry.sha256(model.path),
        "bytes": file.size,
        "architecture": file.architecture,
        "quantization": _quantization(file),
        "parameters": sum(_count(tensor.shape) for tensor in file.tensors.values()),
        "context": file.metadata.get(f"{prefix}.context_length"),
        "layers": file.metadata.get(f"{prefix}.block_count"),
        "width": file.metadata.get(f"{prefix}.embedding_length"),
        "chat_template": "tokenizer.chat_template" in file.metadata,
        "license": file.metadata.get("general.license"),
        "can_be_trained": _trainable(file, model.path),
        **(_origin(pulled) if pulled else {}),
    }


def _origin(pulled: PulledModel) -> dict[str, Any]:
    """Where a pulled model is from."""
    files = {path: {"bytes": size, "hash": digest} for path, size, digest in pulled.files}
    return {"repo": pulled.repo, "revision": pulled.revision, "commit": pulled.commit, "files": files}


def _show_folder(model: ModelRef, pulled: PulledModel) -> dict[str, Any]:
    return {
        "kind": "model",
        "name": model.name,
        "title": model.title or model.name,
        "description": model.description,
        "source": model.source,
        "path": str(model.path),
        "format": pulled.format,
        "bytes": pulled.bytes,
        "architecture": pulled.architecture,
        "quantization": pulled.quantization,
        **_origin(pulled),
    }


def _trainable(file: GGUFFile, path: Path) -> str:
    """ "yes", or why not."""
    if len(part_paths(path)) > 1:
        return "no: it is in several files, which llama.cpp's `llama-gguf-split --merge` joins"
    try:
        model_config(file)
    except ModelError as e:
        return f"no: {e.message}"
    return "yes"


def _show_adapter(registry: Registry, adapter: AdapterRef) -> dict[str, Any]:
    file = read_header(adapter.path)
    if file.kind != "adapter":
        raise AdapterNotFoundError(f"{adapter.path} is a model, not an adapter.")
    return {
        "kind": "adapter",
        "name": adapter.name,
        "path": str(adapter.path),
        "sha256": registry.sha256(adapter.path),
        "bytes": file.size,
        "architecture": file.architecture,
        "alpha": file.metadata.get("adapter.lora.alpha"),
        "rank": max((min(tensor.shape) for tensor in file.tensors.values()), default=0),
        "tensors": len(file.tensors),
        **_said(file),
        **{k: v for k, v in registry.manifest(adapter).items() if k not in ("name", "path")},
    }


def _said(adapter: GGUFFile) -> dict[str, Any]:
    """What a GGUF adapter of ours says of itself: its base, its training, its certificate, its merge."""
    said: dict[str, Any] = {}
    for key, value in adapter.metadata.items():
        room, _, rest = key.partition(".")
        group, _, name = rest.partition(".")
        if room == "localllm" and name and isinstance(value, int | float | str):
            said.setdefault(group, {})[name] = value
    return said


def _quantization(file: GGUFFile) -> str:
    """The type that holds most of the weights, with the others named."""
    weights: Counter[str] = Counter()
    for tensor in file.tensors.values():
        weights[tensor.type] += _count(tensor.shape)
    first, *others = [name for name, _ in weights.most_common() if name != "F32"] or ["F32"]
    return f"{first} (with {', '.join(others)})" if others else first


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
