"""The engine against llama.cpp's own program, and against itself alone, in parts, and with adapters."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from localllm.engine.base import Finished, Prefilled, Request, TextDelta, stream
from localllm.engine.llama import LlamaEngine
from localllm.errors import (
    AdapterError,
    AdapterMismatchError,
    ContextOverflowError,
    InvalidModelError,
    TemplateError,
    UsageError,
)
from localllm.types import Message, Sampling
from localllm.weights.gguf import read_header
from tests.engine.helpers import answer, never_ending, write_adapter

GOLDEN = Path(__file__).with_name("golden") / "stories260k.json"
LONG = "The quick brown fox jumps over the lazy dog near the old river bank. " * 20


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text())["answers"], ids=lambda case: case["prompt"])
def test_greedy_text_is_that_of_llama_cpps_own_program(stories: Path, case: dict[str, str]) -> None:
    engine = LlamaEngine.open(stories, n_threads=1)
    text, finished = answer(engine, case["prompt"], Sampling(max_tokens=400))
    engine.close()
    assert text.rstrip("\n") == case["text"]
    assert finished.usage.output_tokens == 400


def test_logits_name_the_token_that_greedy_decoding_takes(guide: LlamaEngine) -> None:
    tokens = guide.encode_chat([Message("user", "Summarize the following text.\n\nThe harbour was built in 1901.")])
    rows = guide.logits(tokens)
    assert rows.shape == (len(tokens), guide.info.n_vocab)
    deltas = [e for e in stream(guide, Request(tuple(tokens), Sampling(max_tokens=1))) if isinstance(e, TextDelta)]
    assert deltas[0].tokens == (int(np.argmax(rows[-1])),)


def test_text_survives_tokens_and_back(guide: LlamaEngine) -> None:
    text = "Price: 1,024.50 EUR — naïve café 日本語 🙂\n\ttabs"
    assert guide.detokenize(guide.tokenize(text, add_special=False)) == text


def test_a_second_turn_reads_only_what_is_new_and_answers_the_same(guide: LlamaEngine, guide_path: Path) -> None:
    first = guide.encode_chat([Message("user", "Hello")])
    list(stream(guide, Request(tuple(first), Sampling(max_tokens=8))))
    turns = [Message("user", "Hello"), Message("assistant", "Hello."), Message("user", "Who are you?")]
    request = Request(tuple(guide.encode_chat(turns)), Sampling(max_tokens=24))
    warm = list(stream(guide, request))
    fresh = LlamaEngine.open(guide_path, n_ctx=1024, n_threads=1)
    cold = list(stream(fresh, request))
    fresh.close()
    assert warm[-1].usage.cached_tokens >= len(first) - 4
    assert cold[-1].usage.cached_tokens == 0
    assert [e.tokens for e in warm if isinstance(e, TextDelta)] == [e.tokens for e in cold if isinstance(e, TextDelta)]


def test_cancel_stops_between_tokens_and_the_engine_goes_on(guide: LlamaEngine) -> None:
    cancel = threading.Event()
    seen = []
    for event in stream(guide, Request(tuple(guide.tokenize("One")), Sampling(logit_bias=never_ending(guide))), cancel):
        seen.append(event)
        if len([e for e in seen if isinstance(e, TextDelta)]) == 3:
            cancel.set()
    assert isinstance(seen[-1], Finished)
    assert seen[-1].reason == "cancelled"
    assert seen[-1].usage.output_tokens == 3
    assert answer(guide, "One")[1].reason in ("stop", "length")


def test_cancel_during_prefill_aborts_inside_the_native_call(guide_path: Path) -> None:
    engine = LlamaEngine.open(guide_path, n_ctx=2048, n_threads=1)
    tokens = tuple(engine.tokenize(LONG))[:512]
    request_id = engine.submit(Request(tokens))
    calls = 0

    def abort_soon(_data: object) -> bool:
        nonlocal calls
        calls += 1
        if calls == 3:
            engine.cancel(request_id)
        return calls >= 3

    callback = engine._llama.ggml_abort_callback(abort_soon)
    engine._llama.llama_set_abort_callback(engine._context.pointer, callback, None)
    events = engine.step()
    assert [type(e) for e in events] == [Finished]
    assert events[0].reason == "cancelled"
    assert calls < 50, "the rest of the prompt was not computed"
    engine.close()


def test_long_prompts_are_read_in_chunks_with_progress(guide: LlamaEngine) -> None:
    tokens = tuple(guide.tokenize(LONG + LONG))[:900]
    progress = [e.done for e in stream(guide, Request(tokens, Sampling(max_tokens=1))) if isinstance(e, Prefilled)]
    assert progress == [512, 900] or progress[-1] == 900


def test_a_prompt_that_does_not_fit_says_by_how_much(guide: LlamaEngine) -> None:
    tokens = (5,) * 1030
    with pytest.raises(ContextOverflowError, match=r"needs 1031 tokens but the context holds 1024: 7 too many") as info:
        guide.submit(Request(tokens))
    assert "--ctx" in info.value.hint


def test_the_answer_ends_where_the_context_does(guide_path: Path) -> None:
    engine = LlamaEngine.open(guide_path, n_ctx=256, n_threads=1)
    prompt = tuple(engine.tokenize("Tell me everything."))
    done = list(stream(engine, Request(prompt, Sampling(logit_bias=never_ending(engine)))))[-1]
    n_ctx = engine.info.n_ctx
    engine.close()
    assert done.reason == "length"
    assert done.usage.output_tokens == n_ctx - len(prompt) + 1


def _attention_shapes(path: Path) -> dict[str, tuple[int, int]]:
    tensors = read_header(path).tensors
    return {name: t.shape for name, t in tensors.items() if name.endswith("attn_q.weight") or "ffn_down" in name}


def test_adapters_come_and_go_without_reloading(guide: LlamaEngine, guide_path: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a.gguf", _attention_shapes(guide_path))
    tokens = guide.tokenize("Who are you?")
    base = guide.logits(tokens)
    guide.set_adapters([(adapter, 1.0)])
    adapted = guide.logits(tokens)
    guide.set_adapters([(adapter, 0.5)])
    half = guide.logits(tokens)
    guide.set_adapters([])
    assert np.abs(adapted - base).max() > 0.1
    assert np.abs(half - adapted).max() > 0.01
    assert np.array_equal(guide.logits(tokens), base)


def test_what_was_read_with_another_adapter_is_read_again(guide: LlamaEngine, guide_path: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a.gguf", _attention_shapes(guide_path))
    before, _ = answer(guide, LONG[:200])
    guide.set_adapters([(adapter, 1.0)])
    _, with_adapter = answer(guide, LONG[:200])
    guide.set_adapters([])
    after, _ = answer(guide, LONG[:200])
    assert with_adapter.usage.cached_tokens == 0
    assert before == after


@pytest.mark.parametrize(
    "change, error, match",
    [
        ({"shapes": {"blk.0.attn_q.weight": (256, 128)}}, AdapterMismatchError, r"blk\.0\.attn_q\.weight.*256"),
        ({"shapes": {"blk.99.attn_q.weight": (256, 256)}}, AdapterMismatchError, r"blk\.99\.attn_q"),
        ({"architecture": "qwen3"}, AdapterMismatchError, "qwen3 models"),
        ({"shapes": {"token_embd.weight": (4096, 256)}}, AdapterError, "shares with its output"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_name(
    guide: LlamaEngine, tmp_path: Path, change: dict[str, object], error: type[Exception], match: str
) -> None:
    arguments = {"shapes": {"blk.0.attn_q.weight": (256, 256)}, **change}
    path = write_adapter(tmp_path / "bad.gguf", **arguments)  # type: ignore[arg-type]
    with pytest.raises(error, match=match):
        guide.set_adapters([(path, 1.0)])
    assert answer(guide, "Hello")[1].reason in ("stop", "length")


def test_a_model_is_not_an_adapter_and_an_adapter_no_model(
    guide: LlamaEngine, guide_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match="not a LoRA adapter"):
        guide.set_adapters([(guide_path, 1.0)])
    adapter = write_adapter(tmp_path / "a.gguf", _attention_shapes(guide_path))
    with pytest.raises(InvalidModelError, match="is an adapter, not a model"):
        LlamaEngine.open(adapter)


def test_a_file_without_a_template_continues_text_but_does_not_chat(stories: Path) -> None:
    engine = LlamaEngine.open(stories, n_threads=1)
    with pytest.raises(TemplateError, match="holds no chat template"):
        engine.encode_chat([Message("user", "Hello")])
    engine.close()
    engine = LlamaEngine.open(stories, template="plain")
    assert engine.detokenize(engine.encode_chat([Message("user", "Hello")])).endswith("Assistant:")
    engine.close()


def test_a_context_beyond_the_models_training_is_refused(guide_path: Path) -> None:
    with pytest.raises(UsageError, match="trained on up to 2048"):
        LlamaEngine.open(guide_path, n_ctx=4096)


def test_a_damaged_file_never_reaches_llama_cpp(guide_path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    shutil.copy(guide_path, cut)
    with cut.open("r+b") as file:
        file.truncate(cut.stat().st_size // 2)
    with pytest.raises(InvalidModelError, match=r"truncated|missing"):
        LlamaEngine.open(cut)


def test_requests_wait_their_turn(guide: LlamaEngine) -> None:
    first = guide.submit(Request(tuple(guide.tokenize("Hello")), Sampling(max_tokens=2)))
    second = guide.submit(Request(tuple(guide.tokenize("Hello there")), replace(Sampling(), max_tokens=2)))
    order = [e.request_id for _ in range(20) for e in guide.step() if isinstance(e, Finished)]
    assert order == [first, second]
    assert guide.step() == []
