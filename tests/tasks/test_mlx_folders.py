"""MLX folders under the same commands as GGUFs: batches with chats and embeddings, adapters by name, and crashes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localllm.engine.base import Engine, Failed, Request, TextDelta, stream
from localllm.errors import AdapterMismatchError, AdapterNotFoundError
from localllm.paths import Home
from localllm.store.registry import MANIFEST, Registry
from localllm.tasks.answer_local import local_answerer
from localllm.tasks.batch import BatchRequest, batch
from localllm.tasks.chat import open_chat
from localllm.tasks.mlx_child import MLXWorker, MLXWorkerEmbedder
from localllm.tasks.opening import open_model
from localllm.tasks.pairing import folder_sha256
from localllm.types import Message, Sampling
from localllm.weights.mlx_folder import read_model_folder
from tests.engine.test_mlx import random_adapter
from tests.tasks.test_batch import Row, chat, content, embed, rows, write
from tests.weights.oracle import oracle


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Home(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(oracle("llama"), tmp_path / "tiny-llama")
    return tmp_path / "tiny-llama"


def trained(registry: Registry, name: str, folder: Path) -> Path:
    """A random adapter that says it was trained on that folder; where its GGUF is."""
    registry.home.adapters.mkdir(parents=True, exist_ok=True)
    place, gguf = random_adapter(oracle("llama-f16.gguf"), registry.adapter_dir(name), 1)
    base = {"name": "tiny", "sha256": registry.sha256(oracle("llama-f16.gguf"))}
    training = {"mlx": folder.name, "mlx_sha256": folder_sha256(registry, read_model_folder(folder))}
    (place / MANIFEST).write_text(json.dumps({"name": name, "base": base, "training": training}))
    return gguf


def test_a_batch_has_the_answers_and_vectors_of_the_gguf(registry: Registry, folder: Path, tmp_path: Path) -> None:
    gguf = trained(registry, "mine", folder)
    path = write(
        tmp_path / "requests.jsonl",
        chat("a", "Hello", max_tokens=6, temperature=0), chat("b", "Hello", max_tokens=6, seed=3, top_k=9, min_p=0.01),
        chat("c", "Hello", max_tokens=20, temperature=0, stop=["e"], repeat_penalty=1.3), chat("long", "Hello " * 900),
        embed("e", ["Hello", "Good day"]), embed("none", ""), chat("x", "Hi", response_format={"type": "json_object"}),
    )  # fmt: skip
    plain = _answers(registry, path, folder, None, tmp_path / "plain.jsonl")
    adapted = _answers(registry, path, folder, "mine", tmp_path / "adapted.jsonl")
    assert plain["e"] != adapted["e"]
    for ours, adapter in ((plain, None), (adapted, str(gguf))):
        theirs = _answers(
            registry, path, oracle("llama-f16.gguf"), adapter, tmp_path / f"llama {adapter is None}.jsonl"
        )
        for name in ("a", "b", "c"):
            assert content(ours[name]) == content(theirs[name]), name
            assert ours[name]["response"]["body"]["usage"] == theirs[name]["response"]["body"]["usage"]
        for name in ("long", "none"):
            assert ours[name]["error"] == theirs[name]["error"]
        pairs = zip(*(found["e"]["response"]["body"]["data"] for found in (ours, theirs)), strict=True)
        for one, other in pairs:
            assert float(np.dot(one["embedding"], other["embedding"])) == pytest.approx(1, abs=2e-5)
        assert ours["x"]["error"]["code"] == "invalid_request"
        assert "cannot be used with an MLX folder" in ours["x"]["error"]["message"]


def _answers(registry: Registry, path: Path, model: Path, adapter: str | None, out: Path) -> dict[str | None, Row]:
    answerer = local_answerer(registry, str(model), adapter, n_threads=1, n_ctx=256, n_slots=1, template="chatml")
    list(batch(BatchRequest(path, out), answerer))
    answerer.close()
    return rows(out)


def answer(engine: Engine, sampling: Sampling) -> str:
    tokens = engine.encode_chat([Message("user", "Hello")])
    return "".join(e.text for e in stream(engine, Request(tuple(tokens), sampling)) if isinstance(e, TextDelta))


def test_an_adapter_is_used_on_the_folder_that_it_was_trained_on_and_on_no_other(
    registry: Registry, folder: Path, tmp_path: Path
) -> None:
    gguf = trained(registry, "mine", folder)
    talk = open_chat(registry, str(folder), "mine", template="chatml", n_ctx=128, n_threads=1)
    said = answer(talk.engine, Sampling(max_tokens=8))
    assert talk.use_adapter(None) is None
    assert answer(talk.engine, Sampling(max_tokens=8)) != said
    assert talk.use_adapter("mine") is talk.adapter is not None
    assert answer(talk.engine, Sampling(max_tokens=8)) == said
    with pytest.raises(AdapterNotFoundError):
        talk.use_adapter("nope")
    with pytest.raises(
        AdapterMismatchError, match="tiny-llama is an MLX folder, and the adapter 'adapter' was not trained on it"
    ):
        talk.use_adapter(str(shutil.copy(gguf, tmp_path)))
    assert answer(talk.engine, Sampling(max_tokens=8)) == said
    talk.close()
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 5000.0}))
    with pytest.raises(
        AdapterMismatchError, match=r"other weights .* Use it with --model tiny, or train one .* --mlx .*other"
    ):
        open_model(registry, str(other), "mine", template="chatml")


@pytest.fixture
def worker(folder: Path, tmp_path: Path) -> Iterator[MLXWorker]:
    engine = MLXWorker.open(folder, 256, 1, cache=str(tmp_path))
    assert isinstance(engine, MLXWorker)
    yield engine
    engine.close()


def test_a_crash_names_mlx(worker: MLXWorker, folder: Path, tmp_path: Path) -> None:
    worker.submit(Request(tuple(worker.tokenize("Hello")), Sampling(max_tokens=100, temperature=1.0)))
    assert worker.pid
    os.kill(worker.pid, signal.SIGSEGV)
    events: list[Any] = []
    while not events or not isinstance(events[-1], Failed):
        events += worker.step()
    assert events[-1].message.startswith("MLX crashed (SIGSEGV) while it answered")
    embedder = MLXWorkerEmbedder.open(folder, 256, 1, cache=str(tmp_path))
    assert embedder.embed("Hello")[1] > 0
    embedder.close()
