"""Embeddings, against MLX's hidden states and against llama.cpp's own pooling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from localllm.engine.embedding import Embedder
from localllm.engine.worker_embedding import WorkerEmbedder
from localllm.errors import AdapterError, ContextOverflowError, EngineCrashedError, UnsupportedModelError, UsageError
from localllm.tune.load import load_model
from localllm.tune.loss import hidden_states
from localllm.weights.entries import Typed
from localllm.weights.excerpt import write_excerpt
from localllm.weights.gguf import GGUFFile, read_header
from localllm.weights.writer import copy_gguf
from tests.engine.helpers import write_adapter
from tests.weights.oracle import fixture

TOKENS = tuple(int(t) for t in np.random.default_rng(0).integers(3, 500, 700))


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    """A tiny Llama whose weights are float32, so that both libraries compute the same, with a longer context."""
    file, folder = read_header(fixture("llama")), tmp_path_factory.mktemp("floats")
    write_excerpt(file, folder / "short.gguf", list(range(int(str(file.metadata["llama.block_count"])))))
    longer = {"llama.context_length": Typed("u32", 1024)}
    copy_gguf(read_header(folder / "short.gguf"), folder / "llama.gguf", metadata=longer)
    return read_header(folder / "llama.gguf")


@pytest.fixture(scope="module")
def embedder(floats: GGUFFile) -> Iterator[Embedder]:
    embedder = Embedder.open(floats.path, n_ctx=1024, n_threads=1)
    yield embedder
    embedder.close()


def mean_in_mlx(file: GGUFFile, tokens: tuple[int, ...]) -> np.ndarray:
    states = np.array(hidden_states(load_model(file, "float32"), mx.array([tokens]))[0], np.float64)
    mean = states.mean(0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("length", [1, 17, 512, 700])  # the last takes two batches
def test_a_vector_is_the_mean_of_mlxs_states(embedder: Embedder, floats: GGUFFile, length: int) -> None:
    vector = embedder.embed(TOKENS[:length])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert float(vector @ mean_in_mlx(floats, TOKENS[:length])) == pytest.approx(1, abs=1e-5)


def test_what_was_embedded_before_does_not_matter(embedder: Embedder) -> None:
    alone = embedder.embed(TOKENS[:40])
    for other in (TOKENS[:700], TOKENS[100:103], TOKENS[:41]):
        embedder.embed(other)
    assert np.array_equal(embedder.embed(TOKENS[:40]), alone)
    assert abs(float(embedder.embed(TOKENS[:41]) @ alone)) < 0.999999


@pytest.mark.parametrize("kind, like", [(1, "mean"), (3, "last")])
def test_the_pooling_that_a_file_names_is_used(
    floats: GGUFFile, embedder: Embedder, tmp_path: Path, kind: int, like: str
) -> None:
    target = tmp_path / "pooled.gguf"
    copy_gguf(floats, target, metadata={"llama.pooling_type": Typed("u32", kind)})
    pooled = Embedder.open(target, n_ctx=1024, n_threads=1)
    try:
        vector = pooled.embed(TOKENS[:700])
    finally:
        pooled.close()
    if like == "mean":
        wanted = embedder.embed(TOKENS[:700])
    else:
        last = np.array(hidden_states(load_model(floats, "float32"), mx.array([TOKENS[:700]]))[0, -1])
        wanted = last / np.linalg.norm(last)
    assert float(vector @ wanted) == pytest.approx(1, abs=1e-5)


def test_an_adapter_changes_the_vector(tmp_path: Path, embedder: Embedder, floats: GGUFFile) -> None:
    adapter = write_adapter(tmp_path / "a.gguf", {"blk.0.attn_q.weight": (256, 256)})
    with_adapter = Embedder.open(floats.path, n_ctx=1024, n_threads=1, adapters=[(adapter, 1.0)])
    try:
        assert float(with_adapter.embed(TOKENS[:9]) @ embedder.embed(TOKENS[:9])) < 0.9999
    finally:
        with_adapter.close()
    with pytest.raises(AdapterError):
        Embedder.open(floats.path, adapters=[(fixture("qwen2"), 1.0)])


def test_what_cannot_be_embedded_is_said(embedder: Embedder, floats: GGUFFile, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no tokens"):
        embedder.embed([])
    with pytest.raises(UsageError, match="no token for"):
        embedder.embed([10**6])
    with pytest.raises(ContextOverflowError, match="1 too many"):
        embedder.embed([5] * 1025)
    target = tmp_path / "ranks.gguf"
    copy_gguf(floats, target, metadata={"llama.pooling_type": Typed("u32", 4)})
    with pytest.raises(UnsupportedModelError, match="ranks texts"):
        Embedder.open(target)


def test_the_built_in_model_tells_texts_apart(guide_path: Path) -> None:
    embedder = Embedder.open(guide_path, n_threads=1)
    try:
        one, same, other = (
            embedder.embed(embedder.tokenize(text))
            for text in ("The cat sat on the mat.", "The cat sat on a mat.", "localllm export --to gguf")
        )
    finally:
        embedder.close()
    assert float(one @ same) > float(one @ other) + 0.05


class Dying(WorkerEmbedder):
    child = ("tests.engine.strange_child", "dying_of_a_text")


def test_a_child_process_gives_the_same_vectors_and_refuses_the_same(embedder: Embedder, floats: GGUFFile) -> None:
    worker = WorkerEmbedder.open(floats.path, 1024, 1)
    text = "Größe 日本語 <s>"
    try:
        vector, n_tokens = worker.embed(text)
        assert np.array_equal(vector, embedder.embed(embedder.tokenize(text)))
        assert n_tokens == len(embedder.tokenize(text))
        assert np.array_equal(worker.embed(TOKENS[:700])[0], embedder.embed(TOKENS[:700]))
        with pytest.raises(ContextOverflowError, match="1 too many") as caught:
            worker.embed([5] * 1025)
        assert (caught.value.needed, caught.value.available) == (1025, 1024)
        with pytest.raises(UsageError, match="no token for"):
            worker.embed([10**6])
    finally:
        worker.close()
    with pytest.raises(AdapterError):
        WorkerEmbedder.open(floats.path, adapters=[(fixture("qwen2"), 1.0)])


def test_a_crash_costs_one_text(floats: GGUFFile) -> None:
    worker = Dying.open(floats.path, 1024, 1)
    try:
        before, _ = worker.embed(TOKENS[:9])
        with pytest.raises(EngineCrashedError, match=r"\(SIGABRT\) while it read a text: ggml\.c:99"):
            worker.embed("deadly")
        assert worker.pid is None
        assert np.array_equal(worker.embed(TOKENS[:9])[0], before)
    finally:
        worker.close()
