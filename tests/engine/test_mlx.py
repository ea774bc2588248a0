"""MLX folders as engines: the logits and greedy tokens of llama.cpp on the same weights, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from localllm.engine.base import Finished, Request, TextDelta, stream
from localllm.engine.folder_vocab import FolderVocab, chat_template
from localllm.engine.llama import LlamaEngine
from localllm.engine.mlx import MLXEngine
from localllm.errors import (
    AdapterError,
    ContextOverflowError,
    GrammarError,
    InvalidModelError,
    TemplateError,
    UnsupportedModelError,
    UsageError,
)
from localllm.evaluate.agreement import kl, log_softmax
from localllm.tasks.mlx_child import open_folder
from localllm.types import Message, Sampling
from tests.engine.helpers import write_adapter
from tests.weights.oracle import oracle

TEXT = "The model went to the market and bought three apples."


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[MLXEngine, LlamaEngine]]:
    """A folder, and the GGUF that llama.cpp's own converter made of it."""
    cache = tmp_path_factory.mktemp("cache")
    ours = open_folder(oracle(request.param), n_ctx=256, n_threads=1, cache=str(cache))
    theirs = LlamaEngine.open(oracle(f"{request.param}-f16.gguf"), n_ctx=256, n_threads=1, exact=True)
    yield ours, theirs
    ours.close()
    theirs.close()


def tokens_of(engine: MLXEngine | LlamaEngine, prompt: list[int], sampling: Sampling) -> list[int]:
    events = list(stream(engine, Request(tuple(prompt), sampling)))
    return [token for event in events if isinstance(event, TextDelta) for token in event.tokens]


def test_text_becomes_the_same_tokens(pair: tuple[MLXEngine, LlamaEngine]) -> None:
    ours, theirs = pair
    for text in (TEXT, " two  spaces\n\nand lines", "naïve — ßü 12345", "日本語 🙂"):
        tokens = theirs.tokenize(text)
        assert ours.tokenize(text) == tokens
        assert ours.detokenize(tokens) == theirs.detokenize(tokens)
        assert [ours.vocab.piece(t) for t in tokens] == [theirs.vocab.piece(t) for t in tokens]


def test_logits_and_greedy_tokens_are_those_of_llama_cpp(pair: tuple[MLXEngine, LlamaEngine]) -> None:
    ours, theirs = pair
    tokens = theirs.tokenize(TEXT)
    assert kl(log_softmax(theirs.logits(tokens)), log_softmax(ours.logits(tokens))) < 1e-6
    sampling = Sampling(max_tokens=24)
    assert tokens_of(ours, tokens, sampling) == tokens_of(theirs, tokens, sampling)


def test_settings_choose_the_same_tokens(pair: tuple[MLXEngine, LlamaEngine]) -> None:
    ours, theirs = pair
    tokens = theirs.tokenize(TEXT)
    for settings in (
        {"temperature": 0.9, "seed": 7},
        {"temperature": 1.3, "top_k": 5, "top_p": 0.9, "min_p": 0.05, "seed": 3},
        {"repeat_penalty": 1.7, "frequency_penalty": 0.4, "presence_penalty": 0.3},
        {"logit_bias": ((5, 50.0),)},
    ):
        sampling = Sampling(max_tokens=10, **settings)  # type: ignore[arg-type]
        assert tokens_of(ours, tokens, sampling) == tokens_of(theirs, tokens, sampling), settings


def test_what_a_prompt_shares_with_the_last_one_is_not_computed_again(pair: tuple[MLXEngine, LlamaEngine]) -> None:
    ours, _ = pair
    tokens = ours.tokenize(TEXT * 4)
    first = tokens_of(ours, tokens, Sampling(max_tokens=8))
    longer = [*tokens, *first, *ours.tokenize(" And?", add_special=False)]
    (*_, finished) = stream(ours, Request(tuple(longer), Sampling(max_tokens=8)))
    assert isinstance(finished, Finished)
    assert finished.usage.cached_tokens == len(tokens) + len(first) - 1
    again = tokens_of(ours, longer, Sampling(max_tokens=8))
    ours.logits(tokens)  # forgets
    assert tokens_of(ours, longer, Sampling(max_tokens=8)) == again


def test_what_it_cannot_do_is_refused_by_name(pair: tuple[MLXEngine, LlamaEngine], tmp_path: Path) -> None:
    ours, _ = pair
    for sampling in (Sampling(grammar='root ::= "a"'), Sampling(json_schema="{}")):
        with pytest.raises(GrammarError, match="cannot be used with an MLX folder"):
            ours.submit(Request((1, 2), sampling))
    adapter = write_adapter(tmp_path / "a.gguf", {"blk.0.attn_q.weight": (8, 8)})
    with pytest.raises(AdapterError, match="is an MLX folder, to which a GGUF adapter cannot be attached"):
        ours.set_adapters([(adapter, 1.0)])
    with pytest.raises(ContextOverflowError):
        ours.submit(Request(tuple([1] * 300)))
    with pytest.raises(UsageError, match="prompt is empty"):
        ours.submit(Request(()))
    with pytest.raises(UsageError, match="--ctx 99999999 is not possible"):
        open_folder(ours.info.path, n_ctx=99999999, vocab_only=True)


def copied(tmp_path: Path, **config: object) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(oracle("llama"), folder)
    said = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(said))
    return folder


def test_the_chat_template_is_the_folders(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    engine = open_folder(folder, vocab_only=True)
    with pytest.raises(TemplateError, match="holds no chat template"):
        engine.encode_chat([Message("user", "Hi")])
    assert open_folder(folder, vocab_only=True, template="chatml").info.has_template
    (folder / "chat_template.jinja").write_text(template)
    engine = open_folder(folder, vocab_only=True)
    text = engine.detokenize(engine.encode_chat([Message("user", "Hi")]))
    assert text.strip().startswith("user: Hi")
    several = [{"name": "tools", "template": "no"}, {"name": "default", "template": "yes"}]
    assert chat_template(tmp_path, {"chat_template": several}) == "yes"
    assert chat_template(tmp_path, {"chat_template": 5}) is None


@pytest.mark.parametrize(
    "config, error, said",
    [
        ({"model_type": "../../evil"}, UnsupportedModelError, "which mlx-lm does not know"),
        ({"model_type": "nonsense"}, UnsupportedModelError, "which mlx-lm does not know"),
        ({"model_type": "__init__"}, UnsupportedModelError, "which mlx-lm does not know"),
        ({"num_hidden_layers": 9}, InvalidModelError, "lacks the tensor model.layers"),
        ({"hidden_size": "wide"}, InvalidModelError, "does not make a model of the type llama"),
        ({"intermediate_size": 96}, InvalidModelError, "has the shape"),
        ({"auto_map": {"x": "evil.py"}}, UnsupportedModelError, "names Python code of its own"),
    ],
)
def test_hostile_and_damaged_folders_are_refused(
    tmp_path: Path, config: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        open_folder(copied(tmp_path, **config), cache=str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"model": {}}'])
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InvalidModelError, match="is no tokenizer"):
        FolderVocab(tmp_path)


def test_pieces_of_a_damaged_vocabulary_do_not_fail() -> None:
    vocab = FolderVocab(oracle("qwen3"), size=10_000_000)
    assert vocab.piece(9_999_999) == b""
    with pytest.raises(UsageError):
        vocab.piece(-1)
    assert np.all([isinstance(vocab.piece(token), bytes) for token in range(300)])
