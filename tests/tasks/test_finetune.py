"""The whole road from rows to a verified adapter, and every way to leave it early."""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from localllm.engine.llama import LlamaEngine
from localllm.errors import (
    AdapterError,
    AdapterMismatchError,
    CancelledError,
    DataError,
    LocalLLMError,
    StorageError,
    TrainingError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks import finetune as task
from localllm.tasks.certifying import read_certificate
from localllm.tasks.finetune import Done, FinetuneRequest, Started, finetune
from localllm.tasks.heldout import HELD_OUT
from localllm.tasks.judging import Verdict
from localllm.tasks.memory import SPARE, settings_of
from localllm.tasks.preparing import prepare
from localllm.tasks.verify import VerifyResult, verify
from localllm.tune.events import Resumed, Step, Warned
from localllm.types import Example
from localllm.weights.adapter import GGUF_NAME, WEIGHTS, Adapter, read_folder, write_folder
from localllm.weights.fit import model_of, training
from localllm.weights.gguf import read_header
from localllm.weights.quant import read_blocks
from localllm.weights.writer import copy_gguf
from tests.weights.oracle import fixture, shared

WORDS = ("ball", "cat", "dog", "tree", "cake", "bird")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Home(tmp_path / "home"))


@pytest.fixture
def model() -> str:
    return str(shared() / "models" / "stories260K" / "stories260K.gguf")


def rows(tmp_path: Path, n: int = 24) -> Path:
    """Pairs with one right answer."""
    path = tmp_path / "rows.jsonl"
    pairs = [{"prompt": f"Say {WORDS[i % 6]}.", "completion": f" {WORDS[i % 6]} and good bye."} for i in range(n)]
    path.write_text("\n".join(map(json.dumps, pairs)) + "\n")
    return path


def another(tmp_path: Path) -> Path:
    """A model of an architecture that cannot be trained."""
    path = tmp_path / "falcon.gguf"
    copy_gguf(read_header(fixture("llama")), path, metadata={"general.architecture": "falcon"})
    return path


def request(tmp_path: Path, model: str, **settings: object) -> FinetuneRequest:
    settings = {"data": rows(tmp_path), "epochs": 8, **settings}
    return FinetuneRequest(name="bye", model=model, **settings)  # type: ignore[arg-type]


def nothing_is_left(registry: Registry) -> bool:
    folders = (registry.home.adapters, registry.home.runs)
    return not any(p for folder in folders if folder.is_dir() for p in folder.iterdir())


def test_teaches_verifies_and_publishes(tmp_path: Path, registry: Registry) -> None:
    model = str(fixture("llama"))  # random weights, but it has an end token that can be learned
    events = list(finetune(registry, request(tmp_path, model, epochs=16, test=rows(tmp_path))))
    repeats, overlap, tested, started, done = *events[:4], events[-1]
    assert "are the same as an earlier one (line 7 repeats 1" in str(repeats)
    assert "2 validation rows are the same as a training row" in str(overlap)
    assert "24 test rows are the same as a training row" in str(tested)
    assert isinstance(started, Started)
    assert (started.rows, started.held_out, started.format) == (22, 2, "prompt/completion")
    assert len([e for e in events if isinstance(e, Step)]) == started.steps == 16 * 6
    assert isinstance(done, Done)
    assert (done.exact_before, done.tested) == (0.0, 24)
    assert done.exact_after is not None
    assert done.exact_after >= 0.5
    assert done.agreement.kl < done.agreement.base_kl + 1e-3 < 0.1  # llama.cpp rounds activations on Q4_K
    assert done.agreement.effect_cosine > 0.999
    folder = registry.adapter_dir("bye")
    assert {p.name for p in folder.iterdir()} == {
        "adapter.gguf", "adapters.safetensors", "adapter_config.json", "heldout.jsonl", "metrics.jsonl", "adapter.json",
    }  # fmt: skip
    assert sorted(p.name for p in registry.home.adapters.iterdir()) == ["bye"]
    assert not list(registry.home.runs.iterdir())
    metadata = read_header(folder / "adapter.gguf").metadata
    assert metadata["localllm.base.sha256"] == registry.sha256(Path(model))
    assert metadata["localllm.verify.passed"] is True
    assert metadata["localllm.training.rows"] == 22
    assert registry.manifest(registry.adapter("bye"))["test"]["after"] == done.exact_after

    # it is an adapter like any other: verified again by name, and refused on another base
    assert isinstance(list(verify(registry, "bye"))[-1], VerifyResult)
    with pytest.raises(AdapterMismatchError):
        list(verify(registry, "bye", str(fixture("llama3"))))
    with pytest.raises(AdapterError, match="already an adapter named 'bye'"):
        next(finetune(registry, request(tmp_path, model)))

    # a base answers as before once the adapter is off
    engine = LlamaEngine.open(Path(model), n_ctx=64)
    before = engine.logits([1, 2, 3])
    engine.set_adapters([(folder / "adapter.gguf", 1.0)])
    assert abs(engine.logits([1, 2, 3]) - before).max() > 0.1
    engine.set_adapters([])
    assert abs(engine.logits([1, 2, 3]) - before).max() == 0.0
    engine.close()


def test_a_damaged_adapter_fails_verification(tmp_path: Path, registry: Registry, model: str) -> None:
    list(finetune(registry, request(tmp_path, model, epochs=2)))
    folder = registry.adapter_dir("bye")
    base, adapter = read_header(Path(model)), read_folder(folder)
    for scale, problem in ((0.0, "no effect"), (-1.0, "something else in llama.cpp")):
        layers = {path: (a, b * scale) for path, (a, b) in adapter.layers.items()}
        if scale == 0.0:
            task.write_gguf(folder / "adapter.gguf", adapter, base, {})
            write_folder(folder, Adapter(adapter.rank, adapter.alpha, layers))
        else:
            write_folder(folder, adapter)
            task.write_gguf(folder / "adapter.gguf", Adapter(adapter.rank, adapter.alpha, layers), base, {})
        with pytest.raises(VerificationError, match=problem):
            list(verify(registry, "bye"))
    (folder / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match=r"has no adapters\.safetensors beside it"):
        list(verify(registry, "bye"))


@pytest.mark.parametrize("name", ["llama-fused", "qwen2", "qwen3moe", "gemma3", "phi3-longrope", "granite"])
def test_teaches_other_architectures(tmp_path: Path, registry: Registry, name: str) -> None:
    done = list(finetune(registry, request(tmp_path, str(fixture(name)), max_steps=4)))[-1]
    assert isinstance(done, Done)
    verified = registry.manifest(done.adapter)["verify"]
    assert verified["passed"]
    assert verified["conversion_kl"] < 1e-7


def test_what_does_not_fit_is_refused_with_what_would(
    tmp_path: Path, registry: Registry, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"rank": 64, "batch_size": 16, "max_steps": 2}
    prepared = prepare(registry, request(tmp_path, model, **settings))
    whole = settings_of(prepared.config, prepared.train, "float32")
    less = training(model_of(prepared.header), replace(whole, rows=whole.rows // 2)).total
    monkeypatch.setattr("localllm.tasks.memory.available_memory", lambda: int(less / (1 - SPARE)) + 1)
    with pytest.raises(TrainingError, match="GB of memory") as caught:
        list(finetune(registry, request(tmp_path, model, **settings)))
    assert "This would fit: --" in caught.value.hint
    assert not registry.adapter_dir("bye").exists()
    events = list(finetune(registry, request(tmp_path, model, auto=True, **settings)))
    taken = next(e.message for e in events if isinstance(e, Warned) and "To fit the memory" in e.message)
    started = next(e for e in events if isinstance(e, Started))
    assert f"--batch-size {started.config.batch_size}" in taken
    assert started.config.batch_size < 16
    assert isinstance(list(finetune(registry, request(tmp_path, model, overwrite=True, ignore_memory=True)))[-1], Done)


def test_a_report_says_what_changed(tmp_path: Path, registry: Registry, model: str) -> None:
    done = list(finetune(registry, request(tmp_path, model, report=True)))[-1]
    assert isinstance(done, Done)
    assert "loss" in done.verdict
    assert done.report == registry.adapter_dir("bye") / "report.html"
    assert "<svg" in done.report.read_text("utf-8")
    evaluation = registry.manifest(done.adapter)["evaluation"]
    said = evaluation["verdict"]
    assert done.verdict == f"{said['words']} {said['remark']}".strip()


def test_a_certificate_is_kept_and_renewed(tmp_path: Path, registry: Registry, model: str) -> None:
    list(finetune(registry, request(tmp_path, model, epochs=1)))
    folder = registry.adapter_dir("bye")
    made = read_header(folder / GGUF_NAME)
    assert read_certificate(made)["rows"] == "held-out"
    (folder / HELD_OUT).unlink()
    result = list(verify(registry, "bye"))[-1]  # on built-in texts now
    assert isinstance(result, VerifyResult)
    again = read_header(folder / GGUF_NAME)
    assert read_certificate(again) == result.certificate == registry.manifest(registry.adapter("bye"))["verify"]
    assert result.certificate["rows"] == "built-in"
    assert result.conversion is not None
    assert result.conversion.kl < 1e-9
    for name, info in made.tensors.items():  # its tensors keep their bytes
        assert np.array_equal(read_blocks(made, info), read_blocks(again, again.tensors[name]))


def test_a_failed_verification_is_set_aside(
    tmp_path: Path, registry: Registry, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localllm.tasks.verify.judge", lambda conversion, agreement: Verdict("It is bad."))
    with pytest.raises(VerificationError, match=r"It is bad\. It was not registered") as caught:
        list(finetune(registry, request(tmp_path, model, max_steps=2)))
    aside = registry.home.adapters / "bye.failed"
    assert str(aside) in caught.value.hint
    assert (aside / "adapter.gguf").is_file()
    assert json.loads((aside / "verify.json").read_text())["passed"] is False
    assert registry.adapters() == []


def test_stopping_before_the_first_step_leaves_nothing(tmp_path: Path, registry: Registry, model: str) -> None:
    cancel = threading.Event()
    with pytest.raises(CancelledError, match="nothing was kept"):
        for event in finetune(registry, request(tmp_path, model, max_steps=3), cancel):
            if isinstance(event, Started):
                cancel.set()
    assert nothing_is_left(registry)


@pytest.mark.parametrize("stage", ["Step", "VerifyProgress", "AnswerProgress"])
def test_stopping_later_keeps_what_the_same_goes_on_from(
    stage: str, tmp_path: Path, registry: Registry, model: str
) -> None:
    cancel, asked = threading.Event(), request(tmp_path, model, max_steps=40, test=rows(tmp_path))
    with pytest.raises(CancelledError, match=r"Stopped; step \d+ of 40 is saved\. The same command goes on"):
        for event in finetune(registry, asked, cancel):
            if type(event).__name__ == stage:
                cancel.set()
    assert [p.name for p in registry.home.runs.iterdir()] == ["bye"]
    assert not list(registry.home.adapters.iterdir())
    events = list(finetune(registry, asked))
    assert any(isinstance(e, Resumed) and e.step >= 1 for e in events)
    assert isinstance(events[-1], Done)
    assert not list(registry.home.runs.iterdir())


def test_a_front_end_that_goes_away_leaves_only_the_run(tmp_path: Path, registry: Registry, model: str) -> None:
    events = finetune(registry, request(tmp_path, model, save_every=1))
    for event in events:
        if isinstance(event, Step) and event.step == 2:
            break
    events.close()  # type: ignore[attr-defined]
    assert not list(registry.home.adapters.iterdir())
    assert [p.name for p in registry.home.runs.iterdir()] == ["bye"]


def test_mistakes_are_found_before_anything_is_written(tmp_path: Path, registry: Registry, model: str) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a"}\n{"txt": 1}\n')
    cases: list[tuple[dict[str, object], type[LocalLLMError], str]] = [
        ({"data": bad}, DataError, "line 2"),
        ({"max_length": 5}, DataError, "24 of 24 rows|22 of 22 rows"),
        ({"model": str(another(tmp_path))}, UnsupportedModelError, "'falcon', which cannot be fine-tuned"),
        ({"rank": 0}, UsageError, "--rank must be more than 0"),
        ({"dropout": 1.0}, UsageError, "--dropout"),
        ({"learning_rate": 5.0}, UsageError, "--learning-rate 5 would destroy .* Usual are 0.0001 to 0.001"),
        ({"accumulate": 0}, UsageError, "--accumulate must be more than 0"),
        ({"clip": -1.0}, UsageError, "--clip must be at least 0"),
        ({"warmup": 5}, UsageError, "--warmup is a part of the run"),
        ({"dora": True}, UsageError, "llama.cpp: its LoRA files have no place for their magnitudes"),
        ({"targets": "q_proj,w_proj"}, UsageError, "no w_proj .* q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj"),
        ({"name": "../x"}, AdapterError, "cannot be an adapter's name"),
        ({"test": tmp_path / "none.jsonl"}, DataError, "no such file"),
    ]
    for settings, kind, problem in cases:
        fields = {"data": rows(tmp_path), "name": "bye", "model": model, **settings}
        with pytest.raises(kind, match=problem):
            next(finetune(registry, FinetuneRequest(**fields)))  # type: ignore[arg-type]
    assert nothing_is_left(registry)


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path, registry: Registry, model: str) -> None:
    registry.home.root.parent.mkdir(exist_ok=True)
    registry.home.root.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        list(finetune(registry, request(tmp_path, model)))


def test_rows_that_teach_nothing_are_refused(
    tmp_path: Path, registry: Registry, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare(registry, request(tmp_path, model))
    silent = [Example(e.tokens, (False,) * len(e.tokens)) for e in made.train]
    for part, kind in (("train", "22 training"), ("held_out", "22 validation")):
        monkeypatch.setattr(task, "prepare", lambda *_, part=part: replace(made, **{part: silent}))
        with pytest.raises(DataError, match=f"None of the {kind} rows has a token to learn"):
            list(finetune(registry, request(tmp_path, model)))
    monkeypatch.setattr(task, "prepare", lambda *_: replace(made, train=made.train[:1], held_out=made.train))
    events = finetune(registry, request(tmp_path, model))
    said = [str(event) for event in itertools.takewhile(lambda e: not isinstance(e, Started), events)]
    assert any("more rows to validate on (22) than to learn from (1)" in text for text in said)
    assert nothing_is_left(registry)


def test_the_settings_reach_the_adapter(tmp_path: Path, registry: Registry) -> None:
    chosen: dict[str, object] = {
        "rank": 9, "alpha": 6.0, "rslora": True, "targets": "q_proj,mlp.up_proj", "layers": 1, "max_steps": 3,
        "optimizer": "lion", "schedule": "linear", "accumulate": 2, "lora_plus": 4.0, "grad_checkpoint": True,
        "dropout": 0.1, "patience": 1, "batch_tokens": 100,
    }  # fmt: skip
    done = list(finetune(registry, request(tmp_path, str(fixture("llama")), **chosen)))[-1]
    assert isinstance(done, Done)
    adapter = read_folder(registry.adapter_dir("bye"))
    assert set(adapter.layers) == {"model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"}
    assert adapter.scale == pytest.approx(2.0)  # 6 / sqrt(9), so that llama.cpp's alpha is 18
    assert read_header(registry.adapter_dir("bye") / GGUF_NAME).metadata["adapter.lora.alpha"] == pytest.approx(18.0)
