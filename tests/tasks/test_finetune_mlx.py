"""Fine-tuning on the weights of an MLX folder, for the GGUF of the same model."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from localllm.cli.main import main
from localllm.errors import InvalidModelError, UsageError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.finetune import Done, finetune
from localllm.tasks.memory import check_fit
from localllm.tasks.pairing import paired
from localllm.tasks.preparing import prepare
from localllm.tasks.verify import VerifyResult, verify
from localllm.tune.events import Ready, Resumed, Step, Warned
from localllm.tune.job import Job, write_job
from localllm.tune.process import run_job
from localllm.weights.adapter import read_folder
from localllm.weights.fit import TrainingSettings
from localllm.weights.gguf import read_header
from localllm.weights.mlx_parameters import held_bytes
from tests.tasks.test_finetune import request, rows
from tests.tune.mlx_folders import write_mlx_folder
from tests.weights.oracle import fixture, oracle


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Home(tmp_path / "home"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mlx_folder(fixture("llama"), tmp_path_factory.mktemp("mlx") / "llama-4bit", bits=4)


def test_teaches_the_folder_and_verifies_on_the_gguf(tmp_path: Path, registry: Registry, made: Path) -> None:
    asked = request(tmp_path, str(fixture("llama")), mlx=made, max_steps=12, report=True)
    *events, done = finetune(registry, asked)
    assert any(isinstance(e, Warned) and "those of llama-4bit, which differ by 9." in e.message for e in events)
    assert isinstance(done, Done)
    assert done.loss < done.base_loss
    assert done.conversion is not None
    assert done.conversion.kl < 1e-9
    assert done.report
    manifest = registry.manifest(registry.adapter("bye"))
    assert manifest["base"]["sha256"] == registry.sha256(fixture("llama"))
    training = manifest["training"]
    base, _ = paired(registry, made, read_header(fixture("llama")))
    assert (training["mlx"], training["mlx_sha256"]) == ("llama-4bit", base.sha256)
    metadata = read_header(done.adapter.path).metadata
    assert metadata["localllm.training.mlx_sha256"] == base.sha256
    on_the_gguf = manifest["evaluation"]["rows"]
    assert on_the_gguf["loss"] < on_the_gguf["base_loss"]
    last = list(verify(registry, "bye"))[-1]
    assert isinstance(last, VerifyResult)
    assert last.passed


def test_float16_weights_teach_what_the_f16_gguf_of_them_teaches(tmp_path: Path, registry: Registry) -> None:
    model, found = oracle("llama-f16.gguf"), []
    ready = prepare(registry, request(tmp_path, str(model), max_steps=4))
    for mlx in (oracle("llama"), None):
        adapter, run = tmp_path / f"adapter {mlx is None}", tmp_path / f"run {mlx is None}"
        adapter.mkdir()
        run.mkdir()
        job = Job("train", model, adapter, registry.home.cache, ready.config, mlx=mlx)
        write_job(run, job, train=ready.train, held_out=ready.held_out)
        list(run_job(run))
        found.append(read_folder(adapter).tensors())
    assert max(np.abs(value).max() for name, value in found[0].items() if name.endswith("lora_b")) > 1e-4
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert np.allclose(value, found[1][name], rtol=1e-5, atol=1e-7), name


def test_a_run_that_was_left_goes_on_only_with_the_same_folder(tmp_path: Path, registry: Registry, made: Path) -> None:
    asked = request(tmp_path, str(fixture("llama")), mlx=made, max_steps=6, save_every=1)
    cancel = threading.Event()
    with pytest.raises(Exception, match="is saved"):
        for event in finetune(registry, asked, cancel):
            if isinstance(event, Step):
                cancel.set()
    config = made / "config.json"
    sound = config.read_text()
    config.write_text(json.dumps(json.loads(sound) | {"eos_token_id": 7}))
    try:
        with pytest.raises(UsageError, match=r"the content of the folder of --mlx was [0-9a-f]{12}, now "):
            list(finetune(registry, asked))
    finally:
        config.write_text(sound)
    with pytest.raises(UsageError, match=r"the folder of --mlx was [0-9a-f]{12}, now not set"):
        list(finetune(registry, request(tmp_path, str(fixture("llama")), max_steps=6, save_every=1)))
    assert any(isinstance(event, Resumed) for event in finetune(registry, asked))


@pytest.mark.parametrize("residence", ["float32", "streamed", "quantized"])
def test_the_estimate_counts_the_weights_of_the_folder(registry: Registry, made: Path, residence: Any) -> None:
    header = read_header(fixture("llama"))
    base, _ = paired(registry, made, header)
    settings = TrainingSettings(rows=4, length=64, residence=residence)
    own, theirs = (check_fit(header, settings, folder=f).footprint for f in (None, base.parameters))
    assert theirs.weights == held_bytes(base.parameters, residence)
    assert (theirs.weights == own.weights) == (residence == "float32")
    assert theirs.activations == own.activations


def test_tokens_that_only_the_folder_has_are_said(tmp_path: Path, registry: Registry, made: Path) -> None:
    from safetensors.numpy import save_file

    folder = tmp_path / "padded"
    write_mlx_folder(fixture("llama"), folder, dtype=mx.float16)
    weights = {name: np.array(value) for name, value in mx.load(str(folder / "model.safetensors")).items()}
    for path in ("model.embed_tokens", "lm_head"):
        weights[f"{path}.weight"] = np.pad(weights[f"{path}.weight"], ((0, 64), (0, 0)))
    save_file(weights, folder / "model.safetensors")
    asked = request(tmp_path, str(fixture("llama")), mlx=folder, max_steps=2)
    assert any("rows for 64 tokens more" in warning for warning in prepare(registry, asked).warnings)
    ready = next(event for event in finetune(registry, asked) if isinstance(event, Ready))
    assert ready.trainable > 0


def test_a_folder_as_the_model_is_told_where_it_belongs(tmp_path: Path, registry: Registry, made: Path) -> None:
    with pytest.raises(UsageError, match=r"is an MLX folder.*--model FILE\.gguf --mlx "):
        prepare(registry, request(tmp_path, str(made)))


def test_the_default_model_is_not_the_folders(
    tmp_path: Path, made: Path, capsys: pytest.CaptureFixture[str], registry: Registry
) -> None:
    assert main(["finetune", str(rows(tmp_path)), "--mlx", str(made), "--name", "x"]) == 1
    said = capsys.readouterr().err
    assert "is not the model of guide.gguf: its num_hidden_layers is 2, not 6. Give --model the GGUF" in said
    with pytest.raises(InvalidModelError, match=r"lacks blk\.|lacks model\.|is not the model of|does not hold"):
        prepare(registry, request(tmp_path, str(fixture("llama3")), mlx=made))
