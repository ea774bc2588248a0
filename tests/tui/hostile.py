"""A chat of which every name is hostile: model, title, description, system prompt, adapters, models to choose from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from localllm.engine.fake import FakeEngine
from localllm.engine.session import Session
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.chat import Chat
from localllm.types import AdapterRef, ModelRef

CODES = (*range(0x20), 0x7F, *range(0x80, 0xA0))
"""C0, DEL and C1."""


def attack(code: int) -> str:
    """A colour, a window title and a bell, if the character is what begins or ends such things."""
    c = chr(code)
    return f"a{c}[77m{c}]0;own{c}b"


class HostileRegistry(Registry):
    """An adapter and a model for each code, in a home that holds nothing."""

    def __init__(self) -> None:
        super().__init__(Home(Path(tempfile.gettempdir()) / "localllm-no-home"))

    def adapters(self) -> list[AdapterRef]:
        return [AdapterRef(attack(code), Path("/a.gguf")) for code in CODES]

    def models(self) -> list[ModelRef]:
        return [ModelRef(attack(code), Path(f"/{attack(code or 1)}.gguf"), "home") for code in CODES]

    def manifest(self, adapter: AdapterRef) -> dict[str, Any]:
        return {"base": {"name": adapter.name}}


def hostile_chat() -> Any:
    all_of_them = " ".join(map(attack, CODES))
    model = ModelRef(all_of_them, Path("/m.gguf"), "path", all_of_them, all_of_them)
    engine = FakeEngine()
    registry = HostileRegistry()
    return Chat(engine, Session(engine, system=all_of_them), model, registry)
