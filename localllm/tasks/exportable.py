"""An adapter on its way out: found by name or path, checked against its base, and read only where it has to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from localllm.engine.adapters import check_adapter
from localllm.errors import AdapterNotFoundError, InvalidModelError, UsageError
from localllm.store.registry import Registry
from localllm.tasks.foreign import Found, read_foreign
from localllm.tasks.opening import adapter_for
from localllm.types import ModelRef
from localllm.weights.adapter import WEIGHTS, Adapter
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.lora import shares_output


@dataclass(frozen=True)
class Source:
    """One adapter, and the base that it is exported for."""

    registry: Registry
    name: str
    scale: float
    path: Path
    """Folder or file."""
    gguf: Path | None
    """The file to attach, of one that the registry finds."""
    model: ModelRef
    base: GGUFFile

    @cached_property
    def found(self) -> Found:
        """As ours, read and checked."""
        return read_foreign(self.registry, self.path, self.model, self.base)

    @property
    def adapter(self) -> Adapter:
        """At the strength that was asked for."""
        return replace(self.found.adapter, alpha=self.found.adapter.alpha * self.scale)

    @property
    def as_it_is(self) -> Path | None:
        """A file that needs no change, so that no module of an architecture has to be known."""
        return self.gguf if self.scale == 1.0 else None

    @property
    def shares_output(self) -> bool:
        """Whether it is on an embedding that is the output too."""
        if self.gguf is None:
            return shares_output(self.found.adapter, self.base)
        return "token_embd.weight.lora_a" in read_header(self.gguf).tensors and "output.weight" not in self.base.tensors


def base_of(registry: Registry, name: str) -> ModelRef:
    """The model that an adapter says it was made for. Raises UsageError where it does not say."""
    try:
        base = registry.manifest(registry.adapter(name)).get("base", {})
    except AdapterNotFoundError:
        if not Path(name).expanduser().exists():
            raise
        base = {}
    if not base.get("name"):
        raise UsageError(f"{name} does not say which model it was made for.", "Name it with --model M.")
    path = str(base.get("path", ""))
    return registry.model(path if path and Path(path).is_file() else str(base["name"]))


def find_source(registry: Registry, name: str, scale: float, model: ModelRef, base: GGUFFile) -> Source:
    """An adapter of this machine by its name or path, or one from elsewhere by its path."""
    path, gguf = Path(name).expanduser(), None
    try:
        gguf = adapter_for(registry, name, model).path
    except (AdapterNotFoundError, InvalidModelError):  # no name here; what a file is instead, read_foreign says
        if not path.exists():
            raise
    else:
        check_adapter(gguf, base, attached=False)
        path = gguf.parent if (gguf.parent / WEIGHTS).is_file() else gguf
    return Source(registry, name, scale, path, gguf, model, base)
