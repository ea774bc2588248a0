"""`localllm bench import`: our import of a GGUF beside that of transformers."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from localllm.tasks import bench_child
from localllm.tasks.bench_import import Absent, Measured, Run, bench_import
from localllm.weights.gguf import read_header
from tests.cli.helpers import fails, run

STUB = """#!/bin/sh
echo '{"ready": true, "anonymous": 1000, "resident": 2000}'
%s
"""
DONE = (
    """echo '{"seconds": 2.0, "cpu_seconds": 3.0, "result_bytes": 500, "threads": 3, "version": "9.9","""
    """ "anonymous": 4000, "resident": 1}'"""
)


def interpreter(folder: Path, *lines: str) -> Path:
    """A program that stands in for a Python with transformers."""
    path = folder / "python"
    path.write_text(STUB % "\n".join(lines))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_our_import_is_measured(guide_path: Path) -> None:
    report = run("bench", "import", "guide", "--runs", "2", "--json").json
    ours, streaming, theirs = report["programs"]
    assert report["bytes"] == guide_path.stat().st_size
    assert (ours["program"], ours["runs"]) == ("localllm", 2)
    assert ours["mb_per_second"] == pytest.approx(report["bytes"] / 1e6 / ours["seconds"])
    quantized = [t for t in read_header(guide_path).tensors.values() if t.type != "F32"]
    words = {"Q4_K": 4, "Q8_0": 8}
    weights = [(t.shape[0] * t.shape[1], words[t.type]) for t in quantized]
    assert ours["result_bytes"] == sum(n * bits // 8 + n // 32 * 8 for n, bits in weights)
    if Path("/proc/self/status").exists():
        assert ours["peak_bytes"] >= ours["result_bytes"]
        assert ours["peak_resident"] > ours["peak_bytes"]
    assert (streaming["program"], theirs["program"]) == ("streaming", "transformers")
    assert streaming["result_bytes"] == max(n * bits // 8 + n // 32 * 8 for n, bits in weights)


def test_an_absent_transformers_is_said_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    done = run("bench", "import", "guide", "--runs", "1")
    assert done.code == 0
    assert "localllm: " in done.err
    assert "transformers" in done.out
    assert "not measured: torch is not installed" in done.out
    assert "pip install torch transformers" in done.out


def test_the_peer_is_measured_from_outside(guide_path: Path, tmp_path: Path) -> None:
    events = list(bench_import(guide_path, runs=1, peer=interpreter(tmp_path, DONE)))
    programs = [event.program for event in events]
    assert programs == ["localllm", "localllm", "streaming", "streaming", "transformers", "transformers"]
    theirs = events[-1]
    assert isinstance(theirs, Measured)
    assert (theirs.version, theirs.threads, theirs.seconds, theirs.cpu_seconds) == ("9.9", 3, 2.0, 3.0)
    assert theirs.result_bytes == 500
    assert theirs.mb_per_second == pytest.approx(guide_path.stat().st_size / 2e6)
    assert theirs.peak_bytes is not None
    assert theirs.peak_bytes >= 3000
    assert theirs.extra_bytes == theirs.peak_bytes - 500


def test_a_peer_that_fails_is_reported_with_its_last_words(guide_path: Path, tmp_path: Path) -> None:
    peer = interpreter(tmp_path, "echo first >&2", "echo 'ValueError: no such architecture' >&2", "exit 1")
    *_, last = bench_import(guide_path, runs=1, peer=peer)
    assert isinstance(last, Absent)
    assert last.reason == "ValueError: no such architecture"


def test_runs_are_medians(guide_path: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    times = f"n=$(cat {count} 2>/dev/null || echo 0); echo $((n+1)) > {count}; set -- 9.0 1.0 4.0; shift $n"
    peer = interpreter(tmp_path, times, DONE.replace("2.0", "'$1'"))
    *_, last = bench_import(guide_path, runs=3, peer=peer)
    assert isinstance(last, Measured)
    assert (last.seconds, last.runs) == (4.0, 3)


def test_the_child_says_what_is_missing(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*_: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setitem(bench_child.PREPARE, "transformers", prepare)
    assert bench_child.main("transformers", "x.gguf") == 0
    assert capfd.readouterr().out == '{"missing": "torch"}\n'


def test_both_choices_for_other_types_are_measured(tmp_path: Path, guide_path: Path) -> None:
    results = []
    for other in ("16bit", "8bit"):
        first = next(bench_import(guide_path, runs=1, other=other))  # type: ignore[arg-type]
        assert isinstance(first, Run)
        results.append(first.result_bytes)
    assert results[0] == results[1], "the built-in model has affine tensors only"


def test_mistakes_are_explained(tmp_path: Path) -> None:
    fails(run("bench", "import", "guide", "--runs", "0"), 2, "--runs must be 1 or more")
    fails(run("bench", "import", tmp_path / "none.gguf"), 1, "none.gguf")
    assert run("bench").code == 2
    assert "import" in run("bench", "--help").out
    peer = tmp_path / "no-python"
    done = run("bench", "import", "guide", "--runs", "1", "--peer", peer)
    assert done.code == 2
    assert "Give --peer a Python" in done.err
    assert "Traceback" not in done.err
    assert os.fspath(peer) in done.err
