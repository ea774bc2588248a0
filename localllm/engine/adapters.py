"""LoRA adapters on a loaded model: checked in Python, loaded once, attached and detached without touching the model.

llama.cpp aborts the whole process on some adapters (one on the token embedding of a model that ties it to the output,
for instance), so an adapter's header is compared with the base's before native code opens it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localllm.engine.backend import Group
from localllm.engine.native import forget_complaints, last_complaint, library
from localllm.errors import AdapterError, AdapterMismatchError
from localllm.weights.gguf import GGUFFile, read_header

ALPHA, EMBEDDING = "adapter.lora.alpha", "token_embd.weight"


def check_adapter(path: Path, base: GGUFFile, *, attached: bool = True) -> None:
    """Raises AdapterMismatchError or AdapterError, naming the tensor, unless the adapter fits the base.

    What is asked for is what llama.cpp needs (llama-adapter.cpp, llama-graph.cpp), more strictly than it asks itself:
    it looks at two dimensions of each matrix only, and stops the process at a product that does not fit. What can be
    said without a base, read_header has checked. An adapter that is only to be merged (not `attached`) may change an
    embedding that is the output too.
    """
    adapter = read_header(path)
    _check_metadata(adapter, base)
    for name, tensor in adapter.tensors.items():
        target, dot, half = name.rpartition(".")
        if half not in ("lora_a", "lora_b") or not dot:
            raise _not_lora(path, name)
        if target not in base.tensors:
            raise AdapterMismatchError(f"The adapter {path} changes {target}, which {base.path.name} does not have.")
        if attached and target == EMBEDDING and "output.weight" not in base.tensors:
            message = f"The adapter {path} changes the token embedding, which {base.path.name} shares with its output."
            raise AdapterError(message, "llama.cpp cannot attach that; merge it into the model instead.")
        if half == "lora_a":
            _check_pair(target, tensor.shape, adapter.tensors[f"{target}.lora_b"].shape, base)


def _check_metadata(adapter: GGUFFile, base: GGUFFile) -> None:
    path, metadata = adapter.path, adapter.metadata
    if metadata.get("general.type") != "adapter" or metadata.get("adapter.type") != "lora":
        raise AdapterError(f"{path} is a GGUF, but not a LoRA adapter.", "A model is chosen with --model.")
    ours, theirs = metadata.get("general.architecture"), base.metadata.get("general.architecture")
    if ours != theirs:
        raise AdapterMismatchError(f"The adapter {path} is for {ours} models; {base.path.name} is a {theirs} model.")
    if "adapter.alora.invocation_tokens" in metadata:
        message = f"The adapter {path} is an activated LoRA (aLoRA), which works only after a certain text."
        raise AdapterError(message, "localllm applies an adapter to the whole conversation, so it cannot use this one.")
    alpha = metadata.get(ALPHA)
    if isinstance(alpha, float) and (alpha == 0 or not math.isfinite(alpha)):  # without alpha it multiplies with 1
        meaning = "would take that for no alpha at all" if alpha == 0 else "cannot multiply with that"
        raise AdapterError(f"The adapter {path} has alpha {alpha:g}: llama.cpp {meaning}.", "Convert it again.")


def _not_lora(path: Path, name: str) -> AdapterError:
    if name.endswith("_norm.weight"):
        message = f"The adapter {path} holds {name}, a norm of its own, which llama.cpp would leave out."
        return AdapterError(message, "Merge it into the model with the program that made it.")
    return AdapterError(f"The adapter {path} holds {name}, which is not a LoRA matrix.", "Convert it again.")


def _check_pair(target: str, a: tuple[int, ...], b: tuple[int, ...], base: GGUFFile) -> None:
    """The two matrices must be what `weights.lora` says of linear layers, experts and the embedding."""
    weight, file = base.tensors[target].shape, base.path.name
    if len(weight) < 2:
        raise AdapterError(f"The adapter changes {target}, which is not a matrix in {file}.", "Convert it again.")
    *experts, out, width = weight
    rank = b[-1]
    wanted_a = (out, rank) if target == EMBEDDING else (*experts, rank, width)
    wanted_b = (width, rank) if target == EMBEDDING else (*experts, out, rank)
    for half, found, wanted in (("lora_b", b, wanted_b), ("lora_a", a, wanted_a)):
        if found != wanted:
            raise AdapterMismatchError(
                f"{target}.{half} has shape {found}, but {target} in {file} has {weight}: at rank {rank} it must be "
                f"{wanted}."
            )


class AdapterSet:
    """The adapters that a model has loaded, for all of its contexts. Freed with the model."""

    def __init__(self, model: Any, base: GGUFFile) -> None:
        self._llama = library()
        self._model = model
        self._base = base
        self._loaded: dict[tuple[str, int, int], Any] = {}

    def resolve(self, adapters: Sequence[tuple[Path, float]]) -> Group:
        """The adapters of those files, loaded. Raises AdapterError."""
        return tuple((self._load(path), scale) for path, scale in adapters)

    def attach(self, context: Any, group: Group) -> None:
        """Use exactly these adapters in a context. Raises AdapterError; the old ones then stay."""
        pointers = (self._llama.llama_adapter_lora_p_ctypes * len(group))(*(pointer for pointer, _ in group))
        scales = (ctypes.c_float * len(group))(*(scale for _, scale in group))
        if self._llama.llama_set_adapters_lora(context, pointers, len(group), scales):
            raise AdapterError("llama.cpp could not attach the adapter.", "See what `localllm show` says of it.")

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
