"""What the nodes of a cluster do in tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib import import_module

from localllm.errors import EngineError

Work = Callable[[Sequence[str]], list[str]]


def slowly() -> Work:
    """Says where each item was worked on."""
    node = import_module("ray").get_runtime_context().get_node_id()

    def work(items: Sequence[str]) -> list[str]:
        time.sleep(0.2)
        return [f"{node} {item}" for item in items]

    return work


def failing() -> Work:
    def work(items: Sequence[str]) -> list[str]:
        raise EngineError("the model is of another kind.", "Fetch it anew.")

    return work
