"""From names to a loaded model; an adapter goes only on the bytes it was made for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from localllm.engine.base import Finished
from localllm.errors import AdapterError, AdapterMismatchError, AdapterNotFoundError, TemplateError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.chat import open_chat
from localllm.tasks.opening import open_model, open_vocabulary
from localllm.types import Sampling
from tests.engine.helpers import write_adapter
from tests.weights.oracle import oracle

QUERY = {"blk.0.attn_q.weight": (256, 256)}


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


def test_a_bare_adapter_is_held_against_the_hash_in_its_metadata(registry: Registry, tmp_path: Path) -> None:
    ours = registry.sha256(registry.model("guide").path)
    good = write_adapter(tmp_path / "good.gguf", QUERY, base_sha256=ours)
    other = write_adapter(tmp_path / "other.gguf", QUERY, base_sha256="f" * 64)
    silent = write_adapter(tmp_path / "silent.gguf", QUERY)
    for path in (good, silent):
        opened = open_model(registry, "guide", str(path))
        assert opened.adapter is not None
        opened.engine.close()
    with pytest.raises(AdapterMismatchError, match="content hash ffffffffffff"):
        open_model(registry, "guide", str(other))


def test_a_chat_switches_adapters_and_keeps_the_one_that_works(registry: Registry, tmp_path: Path) -> None:
    good = write_adapter(tmp_path / "good.gguf", QUERY)
    other = write_adapter(tmp_path / "other.gguf", QUERY, base_sha256="f" * 64)
    chat = open_chat(registry, "guide", n_ctx=512, n_threads=1)
    assert chat.use_adapter(str(good)) is chat.adapter is not None
    for name, error in ((str(other), AdapterMismatchError), ("nope", AdapterNotFoundError)):
        with pytest.raises(error):
            chat.use_adapter(name)
        assert chat.adapter is not None
        assert chat.adapter.path == good
    assert isinstance(list(chat.send("Hello"))[-1], Finished)
    assert chat.use_adapter(None) is None
    assert len(chat.session.turns) == 2
    chat.close()


def test_a_model_that_only_continues_text_does_not_chat(registry: Registry, stories: Path) -> None:
    with pytest.raises(TemplateError, match="--template NAME"):
        open_chat(registry, str(stories))
    open_chat(registry, str(stories), template="plain").close()


def test_an_mlx_folder_chats_under_the_same_names(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "qwen3"
    shutil.copytree(oracle("qwen3"), folder)
    chat = open_chat(registry, str(folder), template="chatml", n_ctx=128, sampling=Sampling(max_tokens=6, seed=1))
    for _ in range(2):
        *_, finished = chat.send("Hello")
        assert isinstance(finished, Finished)
    assert finished.usage.cached_tokens > 0
    assert len(chat.session.turns) == 4
    with pytest.raises(AdapterError, match="is an MLX folder"):
        chat.use_adapter(str(write_adapter(tmp_path / "a.gguf", QUERY)))
    chat.close()
    name, vocabulary = open_vocabulary(registry, str(folder))
    assert (name, len(vocabulary.tokenize("Hello"))) == ("qwen3", len(chat_tokens(folder)))
    vocabulary.close()
    with pytest.raises(AdapterNotFoundError, match="no adapter named 'some'"):
        open_model(registry, str(folder), "some")


def chat_tokens(folder: Path) -> list[int]:
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode("Hello").ids)
