"""The shared tiny random models that llama.cpp's own converter made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared() -> Path:
    """The folder of shared data; skips the test, with the reason, where it is absent."""
    folder = Path(os.environ.get("LOCALLLM_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"shared test data is absent ({folder}); set LOCALLLM_SHARED")
    return folder


def oracle(name: str) -> Path:
    """A tiny random model converted to GGUF."""
    return shared() / "oracle" / name
