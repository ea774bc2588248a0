"""The verdict of a verification, from numbers alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from localllm.errors import AdapterError, VerificationError
from localllm.evaluate.agreement import Agreement, compare, kl, log_softmax
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.certifying import read_certificate
from localllm.tasks.conversion import Conversion
from localllm.tasks.heldout import MAX_PROBABILITIES, choose_positions, read_held_out, write_held_out
from localllm.tasks.importing import Imported, ImportRequest, import_adapter
from localllm.tasks.judging import Verdict, judge
from localllm.tasks.probes import PROBES, probe_rows
from localllm.tasks.verify import VerifyResult, VerifyStarted, verify
from localllm.types import Example
from localllm.weights.entries import Typed
from localllm.weights.excerpt import float_size
from localllm.weights.gguf import read_header
from localllm.weights.writer import copy_gguf

GOOD = Agreement(
    positions=100, base_kl=1e-5, kl=1e-4, top1=0.99, base_top1=1.0, effect_cosine=0.999, effect_kl=0.5
)  # fmt: skip
EXACT = Conversion(layers=4, of=4, base_kl=1e-12, kl=1e-12, cosine=1.0, effect_kl=0.5)


@pytest.mark.parametrize(
    "change, problem",
    [
        ({}, ""),
        ({"effect_kl": 0.0}, "no effect"),
        ({"kl": 0.06}, "differs from MLX"),
        ({"kl": 0.06, "base_kl": 0.02}, ""),  # the base itself is rounded that much
        ({"top1": 0.9, "effect_cosine": 0.9}, ""),  # the same: rounding, reported and not judged
    ],
)
def test_the_verdict_on_the_file_itself(change: dict[str, float], problem: str) -> None:
    verdict = judge(EXACT, replace(GOOD, **change))  # type: ignore[arg-type]
    assert problem in verdict.problem
    assert bool(verdict.problem) == bool(problem)


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"kl": 1e-6}, "something else in llama.cpp than in MLX"),
        ({"base_kl": 3e-7, "kl": 1e-6}, ""),  # within ten times what the base differs by
        ({"base_kl": 2e-6}, "disagree on the base itself"),
        ({"cosine": 0.9}, "another direction"),
        ({"cosine": 0.0, "effect_kl": 0.0}, ""),  # an adapter of other layers than those that were looked at
    ],
)
def test_the_verdict_on_the_conversion(change: dict[str, float], problem: str) -> None:
    verdict = judge(replace(EXACT, **change), GOOD)  # type: ignore[arg-type]
    assert problem in verdict.problem
    assert bool(verdict.problem) == bool(problem)


def test_an_unmeasured_conversion_is_judged_by_the_direction() -> None:
    assert not judge(None, GOOD).problem
    assert "another direction" in judge(None, replace(GOOD, effect_cosine=0.9)).problem


def test_an_effect_below_the_rounding_is_remarked_on() -> None:
    verdict = judge(EXACT, replace(GOOD, base_kl=1e-3, kl=1e-3, effect_kl=1e-4))
    assert not verdict.problem
    assert "larger than what the adapter changes" in verdict.remark
    assert not judge(EXACT, GOOD).remark


def short_context(model: Path, folder: Path) -> Path:
    """The same model, made for 32 tokens."""
    copy_gguf(read_header(model), folder / "short.gguf", metadata={"llama.context_length": Typed("u32", 32)})
    return folder / "short.gguf"


def test_every_probe_becomes_a_row(guide_path: Path, tmp_path: Path) -> None:
    rows = probe_rows(guide_path)
    assert len(rows) == len(PROBES)
    assert all(any(row.mask) and len(row.tokens) == len(row.mask) for row in rows)
    assert max(len(row.tokens) for row in probe_rows(short_context(guide_path, tmp_path))) == 32
    (tmp_path / "d.jsonl").write_text('{"prompt": "Say a.", "completion": "a"}\n')
    assert len(probe_rows(guide_path, tmp_path / "d.jsonl")) == 1


def test_agreement_of_known_distributions() -> None:
    rng = np.random.default_rng(0)
    base = log_softmax(rng.standard_normal((5, 40)).astype(np.float32))
    change = rng.standard_normal((5, 40)).astype(np.float32)
    tuned = log_softmax(base + change)
    same = compare((base, base), (tuned, tuned))
    assert (same.kl, same.top1) == (0.0, 1.0)
    assert same.effect_cosine == pytest.approx(1.0)
    assert same.effect_kl > 0.1
    opposite = compare((base, base), (log_softmax(base - change), tuned))
    assert opposite.effect_cosine < -0.99
    assert compare((base, base), (base, base)).effect_cosine == 0.0
    p, q = np.log(np.array([[0.5, 0.5]], np.float32)), np.log(np.array([[0.25, 0.75]], np.float32))
    assert kl(p, q) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), rel=1e-6)


def test_positions_are_supervised_spread_and_bounded() -> None:
    rows = [Example(tuple(range(50)), (False,) * 20 + (True,) * 30, i) for i in range(10)]
    chosen = choose_positions(rows, 4096)
    assert sum(sum(s.mask) for s in chosen) == 256
    for row, sequence in zip(rows, chosen, strict=True):
        picked = [i for i, m in enumerate(sequence.mask) if m]
        assert all(row.mask[i + 1] for i in picked)
        assert sequence.tokens == row.tokens[: len(sequence.tokens)]
    few = choose_positions(rows, 1 << 20)
    assert sum(sum(s.mask) for s in few) * (1 << 20) <= MAX_PROBABILITIES
    many = choose_positions(rows * 100, 4096)
    assert sum(sum(s.mask) for s in many) == 256


def test_held_out_rows_survive_the_trip(tmp_path: Path) -> None:
    rows = [Example((1, 2, 3), (False, True, True), 4), Example((5,), (True,), 9)]
    write_held_out(tmp_path / "h.jsonl", rows)
    assert read_held_out(tmp_path / "h.jsonl") == rows
    (tmp_path / "h.jsonl").write_text("{}")
    with pytest.raises(AdapterError, match="cannot be read"):
        read_held_out(tmp_path / "h.jsonl")


ADAPTERS = Path(__file__).parents[1] / "weights" / "adapters"


@pytest.mark.parametrize("kind", ["peft", "gguf", "folder with a gguf"])
def test_an_adapter_from_elsewhere_is_verified_where_it_lies(kind: str, home: Home, tmp_path: Path) -> None:
    """A PEFT folder and a GGUF that llama.cpp's converter made of it."""
    registry, base = Registry(home), str(ADAPTERS / "llama.gguf")
    shutil.copy(ADAPTERS / "llama-plain" / "adapter.gguf", tmp_path)
    adapter = {"peft": ADAPTERS / "llama-plain", "gguf": tmp_path / "adapter.gguf"}.get(kind, tmp_path)
    started, *_, result = verify(registry, str(adapter), base)
    assert isinstance(started, VerifyStarted)
    assert started.kind == "built-in"
    assert isinstance(result, VerifyResult)
    assert result.conversion is not None
    assert result.conversion.kl < 1e-9
    assert result.conversion.cosine > 0.999999
    assert registry.adapters() == []
    with pytest.raises(AdapterError, match="does not say which model"):
        next(iter(verify(registry, str(adapter))))


def test_nothing_of_a_comparison_stays(home: Home) -> None:
    left = home.cache / "verify" / "999999999-killed"
    left.mkdir(parents=True)
    list(verify(Registry(home), str(ADAPTERS / "llama-plain"), str(ADAPTERS / "llama.gguf")))
    assert list((home.cache / "verify").iterdir()) == []


def test_an_import_carries_its_certificate(home: Home) -> None:
    registry, base = Registry(home), ADAPTERS / "llama.gguf"
    request = ImportRequest(ADAPTERS / "llama-plain", str(base), "elsewhere", verify=True)
    done = list(import_adapter(registry, request))[-1]
    assert isinstance(done, Imported)
    kept = registry.manifest(done.adapter)["verify"]
    assert kept["passed"]
    assert kept == read_certificate(read_header(done.adapter.path))
    again = list(verify(registry, "elsewhere"))[-1]
    assert isinstance(again, VerifyResult)
    assert again.certificate == kept


def test_an_import_that_fails_is_set_aside(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localllm.tasks.verify.judge", lambda conversion, agreement: Verdict("It is bad."))
    registry = Registry(home)
    request = ImportRequest(ADAPTERS / "llama-plain", str(ADAPTERS / "llama.gguf"), "bad", verify=True)
    with pytest.raises(VerificationError, match=r"It is bad\. It was not registered"):
        list(import_adapter(registry, request))
    assert registry.adapters() == []
    assert (home.adapters / "bad.failed" / "adapter.gguf").is_file()


def test_a_part_of_the_layers_is_looked_at_where_the_whole_is_too_large(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = read_header(ADAPTERS / "llama.gguf")
    one = float_size(base, [0]) - float_size(base, [])
    monkeypatch.setattr("localllm.tasks.conversion.LIMIT", float_size(base, []) + one)
    result = list(verify(Registry(home), str(ADAPTERS / "llama-plain"), str(base.path)))[-1]
    assert isinstance(result, VerifyResult)
    assert result.conversion is not None
    assert (result.conversion.layers, result.conversion.of) == (1, 2)
    assert result.conversion.kl < 1e-9
    monkeypatch.setattr("localllm.tasks.conversion.LIMIT", 1000)  # as on a full disk
    result = list(verify(Registry(home), str(ADAPTERS / "llama-plain"), str(base.path)))[-1]
    assert isinstance(result, VerifyResult)
    assert result.conversion is None
    assert result.passed
