"""LoRA adapters on a loaded model: checked in Python, loaded once, attached and detached without touching the model.

llama.cpp aborts the whole process on some adapters (one on the token embedding of a model that ties it to the output,
for instance), so an adapter's header is compared with the base's before native code opens it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localllm.engine.native import forget_complaints, last_complaint, library
from localllm.errors import AdapterError, AdapterMismatchError
from localllm.weights.gguf import GGUFFile, read_header


def check_adapter(path: Path, base: GGUFFile) -> None:
    """Raises AdapterMismatchError or AdapterError, naming the tensor, unless the adapter fits the base."""
    adapter = read_header(path)
    if adapter.metadata.get("general.type") != "adapter" or adapter.metadata.get("adapter.type") != "lora":
        raise AdapterError(f"{path} is a GGUF, but not a LoRA adapter.", "A model is chosen with --model.")
    ours, theirs = adapter.metadata.get("general.architecture"), base.metadata.get("general.architecture")
    if ours != theirs:
        raise AdapterMismatchError(f"The adapter {path} is for {ours} models; {base.path.name} is a {theirs} model.")
    for name, tensor in adapter.tensors.items():
        target = name.removesuffix(".lora_a").removesuffix(".lora_b")
        if target == name:
            raise AdapterError(f"The adapter {path} holds {name}, which is not a LoRA matrix.", "Convert it again.")
        if target not in base.tensors:
            raise AdapterMismatchError(f"The adapter {path} changes {target}, which {base.path.name} does not have.")
        if target == "token_embd.weight" and "output.weight" not in base.tensors:
            message = f"The adapter {path} changes the token embedding, which {base.path.name} shares with its output."
            raise AdapterError(message, "llama.cpp cannot attach that; merge it into the model instead.")
        weight = base.tensors[target].shape
        expected = weight[-1] if name.endswith(".lora_a") else weight[-2]
        found = tensor.shape[-1] if name.endswith(".lora_a") else tensor.shape[-2]
        if len(tensor.shape) < 2 or expected != found:
            raise AdapterMismatchError(
                f"{name} has shape {tensor.shape}, but {target} in {base.path.name} has {weight}."
            )


class AdapterSet:
    """The adapters that a model has loaded, and which of them its context uses. Freed with the model."""

    def __init__(self, model: Any, base: GGUFFile) -> None:
        self._llama = library()
        self._model = model
        self._base = base
        self._loaded: dict[tuple[str, int, int], Any] = {}
        self._active: list[tuple[Any, float]] = []

    def attach(self, context: Any, adapters: Sequence[tuple[Path, float]]) -> bool:
        """Use exactly these adapters; whether that changed anything. Raises AdapterError; the old ones then stay."""
        wanted = [(self._load(path), scale) for path, scale in adapters]
        if wanted == self._active:
            return False
        pointers = (self._llama.llama_adapter_lora_p_ctypes * len(wanted))(*(pointer for pointer, _ in wanted))
        scales = (ctypes.c_float * len(wanted))(*(scale for _, scale in wanted))
        if self._llama.llama_set_adapters_lora(context, pointers, len(wanted), scales):
            raise AdapterError("llama.cpp could not attach the adapter.", "See what `localllm show` says of it.")
        self._active = wanted
        return True

    def _load(self, path: Path) -> Any:
        check_adapter(path, self._base)
        status = path.stat()
        key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
        if key not in self._loaded:
            forget_complaints()
            pointer = self._llama.llama_adapter_lora_init(self._model, str(path).encode())
            if not pointer:
                message = f"llama.cpp could not load the adapter {path} ({last_complaint()})."
                raise AdapterError(message, "Convert it again.")
            self._loaded[key] = pointer
        return self._loaded[key]
