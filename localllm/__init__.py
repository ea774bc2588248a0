"""localllm: chat with a 4-bit model, teach it from a small file, and go on chatting with that very file."""

from __future__ import annotations

from typing import Any

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    """The version is read from the installed package only when asked for: importlib.metadata takes 30 ms."""
    if name == "__version__":
        from importlib.metadata import version

        return version("localllm")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
