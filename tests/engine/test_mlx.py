"""MLX folders as engines: the logits and greedy tokens of llama.cpp on the same weights, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from localllm.engine.base import Finished, Request, TextDelta, stream
from localllm.engine.embedding import Embedder
from localllm.engine.folder_vocab import FolderVocab, chat_template
from localllm.engine.llama import LlamaEngine
from localllm.engine.mlx import MLXEngine
from localllm.errors import (
    AdapterError,
    AdapterMismatchError,
    ContextOverflowError,
    GrammarError,
    InvalidModelError,
    TemplateError,
    UnsupportedModelError,
    UsageError,
)
from localllm.evaluate.agreement import kl, log_softmax
from localllm.tasks.mlx_child import open_embedder, open_folder
from localllm.types import Message, Sampling
from localllm.weights.adapter import Adapter, read_folder, write_folder
from localllm.weights.gguf import read_header
from localllm.weights.lora import write_gguf
from localllm.weights.names import modules
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


def test_answers_end_as_with_llama_cpp(pair: tuple[MLXEngine, LlamaEngine]) -> None:
    ours, theirs = pair
    tokens = tuple(theirs.tokenize(TEXT))
    whole = theirs.detokenize(tokens_of(theirs, list(tokens), Sampling(max_tokens=24)))
    for sampling in (
        Sampling(max_tokens=5),
        Sampling(max_tokens=24, stop=(whole[9:13],)),
        Sampling(max_tokens=24, stop=("no such text", whole[3:5], whole[6:9])),
        Sampling(max_tokens=1000),  # until the context is full
    ):
        said = []
        for engine in (ours, theirs):
            *deltas, finished = stream(engine, Request(tokens, sampling))
            assert isinstance(finished, Finished)
            text = "".join(event.text for event in deltas if isinstance(event, TextDelta))
            said.append((text, finished.reason, finished.usage.output_tokens))
        assert said[0] == said[1]
    for engine in (ours, theirs):
        request_id = engine.submit(Request(tokens, Sampling(max_tokens=24)))
        engine.step()
        engine.cancel(request_id)
        (finished,) = [event for event in engine.step() if isinstance(event, Finished)]
        assert finished.reason == "cancelled"
        assert engine.step() == []


def random_adapter(gguf: Path, folder: Path, seed: int) -> tuple[Path, Path]:
    """The same random adapter as a folder of ours and as a GGUF of it, for some matrices of that model."""
    base, random = read_header(gguf), np.random.default_rng(seed)
    layers = {}
    for path, slot in modules(base).items():
        if path.endswith(("0.self_attn.q_proj", "1.self_attn.v_proj", "mlp.down_proj")):
            rows, columns = slot.shape
            a, b = (random.normal(0, 0.05, shape).astype(np.float32) for shape in ((columns, 4), (4, rows)))
            layers[path] = (a, b)
    folder.mkdir()
    write_folder(folder, Adapter(4, 8.0, layers))
    write_gguf(folder / "adapter.gguf", read_folder(folder), base, {})
    return folder, folder / "adapter.gguf"


def test_an_adapter_does_what_its_gguf_does_in_llama_cpp(
    pair: tuple[MLXEngine, LlamaEngine], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ours, theirs = pair
    gguf = oracle(f"{request.node.callspec.params['pair']}-f16.gguf")
    (first, first_gguf), (second, second_gguf) = (random_adapter(gguf, tmp_path / str(i), i) for i in (1, 2))
    tokens = theirs.tokenize(TEXT)
    base = ours.logits(tokens)
    for adapters, ggufs in (
        ([(first, 1.0)], [(first_gguf, 1.0)]),
        ([(second, 0.5)], [(second_gguf, 0.5)]),
        ([(first, 1.0), (second, -0.3)], [(first_gguf, 1.0), (second_gguf, -0.3)]),
    ):
        ours.set_adapters(adapters)
        theirs.set_adapters(ggufs)
        found = log_softmax(ours.logits(tokens))
        assert kl(log_softmax(theirs.logits(tokens)), found) < 1e-6
        assert kl(log_softmax(base), found) > 1e-4
    ours.set_adapters([])
    theirs.set_adapters([])
    assert np.array_equal(ours.logits(tokens), base)
    sampling = Sampling(max_tokens=6)
    answers = []
    for adapter in (((first, 1.0),), (), ((second, 1.0),), ((first, 1.0),), None):  # one after the other on one prompt
        events = list(stream(ours, Request(tuple(tokens), sampling, adapter)))
        answers.append([token for event in events if isinstance(event, TextDelta) for token in event.tokens])
    assert answers[0] == answers[3] == tokens_of_with(theirs, tokens, sampling, first_gguf)
    assert answers[1] == answers[4] == tokens_of(theirs, tokens, sampling)


def tokens_of_with(engine: LlamaEngine, prompt: list[int], sampling: Sampling, adapter: Path) -> list[int]:
    engine.set_adapters([(adapter, 1.0)])
    try:
        return tokens_of(engine, prompt, sampling)
    finally:
        engine.set_adapters([])


def test_an_adapter_for_other_matrices_is_refused_and_the_old_one_stays(
    pair: tuple[MLXEngine, LlamaEngine], tmp_path: Path
) -> None:
    ours, theirs = pair
    tokens = theirs.tokenize(TEXT)
    before = ours.logits(tokens)
    random = np.random.default_rng(0)
    for path, columns, said in (
        ("model.layers.0.self_attn.q_proj", 5, "for a matrix of"),
        ("model.nose", 5, "not have"),
    ):
        a, b = (random.normal(0, 1, shape).astype(np.float32) for shape in ((columns, 2), (2, 7)))
        folder = tmp_path / path
        folder.mkdir()
        write_folder(folder, Adapter(2, 2.0, {path: (a, b)}))
        with pytest.raises(AdapterMismatchError, match=said):
            ours.set_adapters([(folder, 1.0)])
        assert np.array_equal(ours.logits(tokens), before)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_embeddings_are_those_of_the_gguf(name: str, tmp_path: Path) -> None:
    gguf = oracle(f"{name}-f16.gguf")
    folder, adapter = random_adapter(gguf, tmp_path / "a", 1)
    texts = ("Hello", TEXT, TEXT * 7)  # the last takes two pieces
    vectors = {}
    for with_adapter in (False, True):
        ours = open_embedder(oracle(name), 256, 1, [(folder, 1.0)] if with_adapter else [], cache=str(tmp_path))
        theirs = Embedder.open(gguf, 256, 1, [(adapter, 1.0)] if with_adapter else [])
        for text in texts:
            tokens = ours.tokenize(text)
            assert tokens == theirs.tokenize(text)
            vector = ours.embed(tokens)
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
            assert float(vector @ theirs.embed(tokens)) == pytest.approx(1, abs=2e-5)
            vectors[text, with_adapter] = vector
        with pytest.raises(ContextOverflowError):
            ours.embed([1] * 300)
        with pytest.raises(UsageError, match="no tokens"):
            ours.embed([])
        theirs.close()
    assert float(vectors[TEXT, False] @ vectors[TEXT, True]) < 0.9999


def test_a_folder_that_pools_in_its_own_way_is_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "modules.json").write_text("[]")
    with pytest.raises(UnsupportedModelError, match="Use a GGUF of it"):
        open_embedder(folder, cache=str(tmp_path))


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
