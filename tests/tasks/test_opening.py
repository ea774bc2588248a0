"""From names to a loaded model; an adapter goes only on the bytes it was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.engine.base import Finished
from localllm.errors import AdapterMismatchError, AdapterNotFoundError, TemplateError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.chat import open_chat
from localllm.tasks.opening import open_model
from tests.engine.helpers import write_adapter

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
