"""What is on this machine: models, adapters, and everything about one of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from localllm.errors import AdapterNotFoundError, InvalidModelError, ModelError, ModelNotFoundError
from localllm.store.registry import Registry
from localllm.types import AdapterRef, ModelRef
from localllm.weights.config import model_config
from localllm.weights.gguf import GGUFFile, read_header


def list_models(registry: Registry) -> list[dict[str, Any]]:
    """One row for each model; a file that cannot be read has `error` instead of what its header says."""
    return [_model_row(model) for model in registry.models()]


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


def _model_row(model: ModelRef) -> dict[str, Any]:
    row: dict[str, Any] = {"name": model.name, "source": model.source, "path": str(model.path)}
    try:
        file = read_header(model.path)
    except (InvalidModelError, ModelNotFoundError) as e:
        return {**row, "error": e.message}
    return {**row, "bytes": file.size, "architecture": file.architecture, "quantization": _quantization(file)}


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
    file = read_header(model.path)
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
        "can_be_trained": _trainable(file),
    }


def _trainable(file: GGUFFile) -> str:
    """ "yes", or why not."""
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
