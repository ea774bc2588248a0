"""The tiny random models that llama.cpp's own converter made: those of this repository, and the shared ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FIXTURES = Path(__file__).resolve().parents[1] / "oracle"


def fixture(name: str) -> Path:
    """A tiny random Q4_K_M model of this repository (see scripts/make_oracle.py)."""
    return FIXTURES / f"{name}.gguf"


def shared() -> Path:
    """The folder of shared data; skips the test, with the reason, where it is absent."""
    folder = Path(os.environ.get("LOCALLLM_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"shared test data is absent ({folder}); set LOCALLLM_SHARED")
    return folder


def oracle(name: str) -> Path:
    """One of the shared tiny models."""
    return shared() / "oracle" / name
