"""What all tests share: a home of their own, the shared data where it is, and the built-in model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before anything loads numpy or MLX
    # Threads of OpenBLAS and of OpenMP wait for each other by spinning, which takes the core from the tests beside.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from localllm.paths import Home, builtin_models
from tests.weights import oracle

ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Load MLX with the BLAS that the program gives it, which has to come before any test imports MLX."""
    from localllm.tune.device import prepare

    prepare(ROOT / "build/tests", threads=1)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty LOCALLLM_HOME, so that no test sees or touches the person's own."""
    folder = tmp_path / "home"
    for name in [name for name in os.environ if name.startswith("LOCALLLM_") and name != "LOCALLLM_SHARED"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOCALLLM_HOME", str(folder))
    return Home(folder)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared test data; skips with the reason where it is absent."""
    return oracle.shared()


@pytest.fixture(scope="session")
def stories(shared: Path) -> Path:
    """A real trained model of 260 thousand parameters without a chat template."""
    return shared / "models/stories260K/stories260K.gguf"


@pytest.fixture(scope="session")
def guide_path() -> Path:
    """The built-in model, which every checkout and every wheel holds."""
    return builtin_models() / "guide.gguf"


@pytest.fixture(scope="module")
def guide(guide_path: Path) -> Iterator[object]:
    """The built-in model, loaded once for a file of tests."""
    from localllm.engine.llama import LlamaEngine

    engine = LlamaEngine.open(guide_path, n_ctx=1024, n_threads=1)
    yield engine
    engine.close()
