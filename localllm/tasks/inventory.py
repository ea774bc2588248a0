"""Everything about one model or adapter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from localllm.errors import AdapterNotFoundError, InvalidModelError, ModelError, ModelNotFoundError
from localllm.store.pulled import PulledModel
from localllm.store.registry import Registry
from localllm.tasks.listing import adapters_of, folder_facts
from localllm.types import AdapterRef, ModelRef
from localllm.weights.config import model_config
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.mlx_folder import read_model_folder
from localllm.weights.parts import part_paths, read_model


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


def header_facts(file: GGUFFile) -> dict[str, Any]:
    """What `list` shows of a header."""
    facts = {"bytes": file.size, "architecture": file.architecture, "quantization": _quantization(file)}
    return facts if file.kind != "adapter" else {**facts, "kind": file.kind}


def _show_model(registry: Registry, model: ModelRef) -> dict[str, Any]:
    pulled = next((p for p in registry.pulled() if Path(p.path) == model.path), None)
    if model.path.is_dir():
        return _show_folder(registry, model, pulled)
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
        "adapters": adapters_of(registry, model),
        **{key: value for key, value in _brought(model).items() if value},
        **(_origin(pulled) if pulled else {}),
    }


def _origin(pulled: PulledModel) -> dict[str, Any]:
    """Where a pulled model is from."""
    files = {path: {"bytes": size, "hash": digest} for path, size, digest in pulled.files}
    return {"repo": pulled.repo, "revision": pulled.revision, "commit": pulled.commit, "files": files}


def _show_folder(registry: Registry, model: ModelRef, pulled: PulledModel | None) -> dict[str, Any]:
    folder = read_model_folder(model.path)
    return {
        "kind": "model",
        "name": model.name,
        "title": model.title or model.name,
        "description": model.description,
        "source": model.source,
        "path": str(model.path),
        "sha256": registry.sha256(model.path),
        "format": "mlx",
        **folder_facts(model.path),
        "context": folder.config.get("max_position_embeddings"),
        "layers": folder.config.get("num_hidden_layers"),
        "width": folder.config.get("hidden_size"),
        "can_be_trained": "with the GGUF of the same model: localllm finetune --model GGUF --mlx FOLDER",
        "adapters": adapters_of(registry, model),
        **(_origin(pulled) if pulled else {}),
    }


def _brought(model: ModelRef) -> dict[str, Any]:
    """What a model of another program comes with."""
    return {
        "system": model.system,
        "sampling": model.sampling if model.source == "foreign" else {},
        "stop": ", ".join(model.stop),
        "own_adapters": ", ".join(map(str, model.adapters)),
        "notes": " ".join(model.notes),
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
