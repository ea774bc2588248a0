"""The fast BLAS in a fresh process, and the one decision of how weights are held."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from localllm.tune.config import TrainConfig, default_batch_size, default_epochs, default_learning_rate
from localllm.tune.device import prepare, residence

ROOT = Path(__file__).resolve().parents[2]
CHECK = """
import sys; from pathlib import Path; from localllm.tune.device import prepare
device = prepare(Path(sys.argv[1]))
import mlx.core as mx, numpy as np
a, b = mx.random.normal((300, 257)), mx.random.normal((257, 129))
assert np.allclose(np.array(a @ b), np.array(a).astype("f8") @ np.array(b).astype("f8"), atol=1e-3)
assert "transformers" not in sys.modules
print(device.kind, device.blas.replace(" ", "-"), bool(device.warning))
"""


def in_fresh_process(cache: Path, **env: str) -> list[str]:
    command = [sys.executable, "-c", CHECK, str(cache)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | env, check=True, capture_output=True, text=True
    ).stdout.split()  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="the BLAS is exchanged on Linux only")
def test_the_fast_blas_is_compiled_once_and_missing_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)  # so that it measures how many are best
    kind, blas, warned = in_fresh_process(tmp_path / "cache")
    if kind == "cpu":
        assert (blas, warned) == ("scipy-openblas32", "False")
        shims = list((tmp_path / "cache").iterdir())
        assert [p.suffix for p in shims] == [".so"]
        before = shims[0].stat().st_mtime_ns
        in_fresh_process(tmp_path / "cache", CC="/nonexistent")  # already compiled
        assert shims[0].stat().st_mtime_ns == before
        _, blas, warned = in_fresh_process(tmp_path / "other", CC="/nonexistent")
        assert warned == str(blas == "built-in")


def test_mlx_that_is_already_imported_is_said(tmp_path: Path) -> None:
    import mlx.core  # noqa: F401

    if sys.platform == "linux" and (device := prepare(tmp_path)).kind == "cpu":
        assert "will be slow" in device.warning


def test_where_weights_are_kept() -> None:
    assert [residence(kind) for kind in ("cpu", "metal", "cuda")] == ["float32", "quantized", "quantized"]


def test_defaults_fit_small_and_large_sets() -> None:
    assert [default_epochs(n) for n in (10, 120, 500, 5000)] == [10, 8, 2, 2]
    assert [default_batch_size(n) for n in (1, 5, 120, 5000)] == [1, 2, 4, 8]
    assert default_learning_rate(256) == pytest.approx(8e-4)
    assert default_learning_rate(2048) == pytest.approx(2e-4)
    assert TrainConfig(3, 4, 1e-3).steps(3) == 9
    assert TrainConfig(3, 4, 1e-3, accumulate=2).steps(3) == 6
    assert TrainConfig(3, 4, 1e-3, max_steps=5).steps(3) == 5
