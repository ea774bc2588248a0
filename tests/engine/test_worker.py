"""The engine in a child process: the same answers, and whatever kills the child costs no more than it must."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localllm.engine import wire
from localllm.engine.base import Failed, Finished, Prefilled, Request, StepEvent, TextDelta, stream
from localllm.engine.llama import LlamaEngine
from localllm.engine.worker import MAX_CRASHES, WorkerEngine
from localllm.errors import (
    ContextOverflowError,
    EngineCrashedError,
    EngineError,
    GrammarError,
    InvalidModelError,
    ModelNotFoundError,
    TemplateError,
    UsageError,
)
from localllm.types import Message, Sampling
from localllm.weights.entries import Typed
from localllm.weights.gguf import read_header
from localllm.weights.writer import copy_gguf
from tests.engine.helpers import answer, write_adapter
from tests.tune.test_process import running

CHAT = [Message("system", "Be brief."), Message("user", "Who are you? 日本語 🙂")]
LONG = "The quick brown fox jumps over the lazy dog near the old river bank. " * 100
NO_TOKEN = 10**7


@pytest.fixture(scope="module")
def engine(guide_path: Path) -> Iterator[WorkerEngine]:
    """Shared: what the tests do to its child must not matter to the next."""
    engine = WorkerEngine.open(guide_path, n_ctx=1024, n_threads=1)
    yield engine
    engine.close()


class Slow(WorkerEngine):
    child = ("tests.engine.strange_child", "slow")


class Stuck(WorkerEngine):
    child = ("tests.engine.strange_child", "stuck")


class Unchecked(WorkerEngine):
    child = ("tests.engine.strange_child", "unchecked")


class Careless(WorkerEngine):
    child = ("tests.engine.strange_child", "careless")


class Noisy(WorkerEngine):
    child = ("tests.engine.strange_child", "noisy")


class Flooding(WorkerEngine):
    child = ("tests.engine.strange_child", "flooding")


class Dying(WorkerEngine):
    child = ("tests.engine.strange_child", "dying")


@pytest.fixture(scope="module")
def slow(guide_path: Path) -> Iterator[WorkerEngine]:
    """Shared like `engine`."""
    engine = Slow.open(guide_path, n_ctx=1024, n_threads=1)
    yield engine
    engine.close()


@pytest.fixture
def endless(guide: LlamaEngine) -> Sampling:
    """An answer that does not end by itself."""
    from tests.engine.helpers import never_ending

    return Sampling(logit_bias=never_ending(guide))


def kill(engine: WorkerEngine, number: int = signal.SIGKILL) -> None:
    """Have the child die now."""
    assert engine.pid is not None
    os.kill(engine.pid, number)
    assert engine._link is not None
    engine._link._child.wait(10)


def until_over(engine: WorkerEngine, *requests: int) -> list[StepEvent]:
    """Step until these have finished or failed."""
    left, events = set(requests), []
    while left:
        events += engine.step()
        left -= {e.request_id for e in events if isinstance(e, Finished | Failed)}
    return events


def ends(events: list[StepEvent]) -> dict[int, str]:
    """How each request ended."""
    return {e.request_id: getattr(e, "reason", "failed") for e in events if isinstance(e, Finished | Failed)}


def test_it_is_the_engine_itself(engine: WorkerEngine, guide: LlamaEngine) -> None:
    assert engine.info == guide.info
    for text in ("Price: 1,024.50 EUR — naïve café 日本語 🙂\n\ttabs", "", "\ud800"):
        assert engine.tokenize(text, add_special=False) == guide.tokenize(text, add_special=False)
    tokens = engine.encode_chat(CHAT)
    assert tokens == guide.encode_chat(CHAT)
    assert engine.encode_chat(CHAT, add_generation_prompt=False) == guide.encode_chat(CHAT, add_generation_prompt=False)
    assert engine.detokenize(tokens) == guide.detokenize(tokens)
    drawn = Sampling(temperature=0.8, top_p=0.9, seed=4, max_tokens=40)
    for request in (Request(tuple(tokens), Sampling(max_tokens=40)), Request(tuple(tokens), drawn)):
        mine, bare = (
            [e.tokens for e in stream(e, request) if isinstance(e, TextDelta) and e.tokens] for e in (engine, guide)
        )
        assert mine == bare


def test_errors_are_those_of_the_engine(engine: WorkerEngine, guide_path: Path, stories: Path, tmp_path: Path) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        engine.submit(Request((5,) * 1030))
    assert (caught.value.needed, caught.value.available) == (1031, 1024)
    with pytest.raises(GrammarError):
        engine.submit(Request((5,), Sampling(grammar="root ::= (")))
    with pytest.raises(UsageError):
        engine.submit(Request(()))
    assert engine.step() == []
    with pytest.raises(ModelNotFoundError):
        WorkerEngine.open(tmp_path / "none.gguf")
    with pytest.raises(UsageError, match="Choose 1 to 2048"):
        WorkerEngine.open(guide_path, n_ctx=9999)
    other = WorkerEngine.open(stories, n_threads=1, vocab_only=True)
    with pytest.raises(TemplateError, match="stories260K"):
        other.encode_chat(CHAT)
    other.close()
    with pytest.raises(EngineError, match="closed"):
        other.tokenize("a")


def test_a_child_that_died_idle_is_not_missed(engine: WorkerEngine, guide: LlamaEngine) -> None:
    first = engine.pid
    kill(engine)
    assert answer(engine, "One")[0] == answer(guide, "One")[0]
    assert engine.pid != first


@pytest.mark.parametrize(
    "number, words",
    [(signal.SIGSEGV, r"crashed \(SIGSEGV\) while it answered"), (signal.SIGKILL, "killed while it answered.*memory")],
    ids=str,
)
def test_a_child_that_dies_while_it_writes(slow: WorkerEngine, endless: Sampling, number: int, words: str) -> None:
    events = stream(slow, Request(tuple(slow.tokenize("One")), endless))
    with pytest.raises(EngineError, match=words) as caught:
        for count, event in enumerate(events):
            assert isinstance(event, Prefilled | TextDelta)
            if count == 3:
                kill(slow, number)
    assert "try again" in caught.value.hint.lower()
    assert answer(slow, "One")[1].reason in ("stop", "length")


def test_a_child_that_dies_while_it_reads(slow: WorkerEngine) -> None:
    tokens = tuple(slow.tokenize(LONG))[:900]
    with pytest.raises(EngineError, match="SIGABRT"):
        for event in stream(slow, Request(tokens)):
            assert isinstance(event, Prefilled)
            assert event.done < event.total
            kill(slow, signal.SIGABRT)
    assert answer(slow, "One")[1].reason in ("stop", "length")


def test_what_waits_is_answered_by_the_next_child(slow: WorkerEngine, guide: LlamaEngine, endless: Sampling) -> None:
    prompts = [tuple(guide.tokenize(text)) for text in ("One", "Two", "Three", "Four")]
    first = slow.submit(Request(prompts[0], endless))
    others = [slow.submit(Request(prompt, Sampling(max_tokens=8), timeout=500)) for prompt in prompts[1:]]
    slow.cancel(others[2])
    ended: list[StepEvent] = []
    while not ended:  # the cancelled one may be among the first that is heard of
        ended += slow.step()
    kill(slow)
    ended += until_over(slow, *({first, *others} - ends(ended).keys()))
    assert ends(ended) == {first: "failed", others[0]: "length", others[1]: "length", others[2]: "cancelled"}
    for prompt, request_id in zip(prompts[1:3], others, strict=False):
        alone = [e.tokens for e in stream(guide, Request(prompt, Sampling(max_tokens=8))) if isinstance(e, TextDelta)]
        assert [e.tokens for e in ended if isinstance(e, TextDelta) and e.request_id == request_id] == alone


def test_adapters_are_attached_again(
    engine: WorkerEngine, guide: LlamaEngine, guide_path: Path, tmp_path: Path
) -> None:
    shapes = {name: t.shape for name, t in read_header(guide_path).tensors.items() if "ffn_down" in name}
    adapter = write_adapter(tmp_path / "a.gguf", shapes)
    before = answer(engine, "One")[0]
    engine.set_adapters([(adapter, 1)])
    changed = answer(engine, "One")[0]
    assert changed != before
    kill(engine)
    assert answer(engine, "One")[0] == changed
    engine.set_adapters([])
    kill(engine)
    assert answer(engine, "One")[0] == before


def test_stopping_keeps_what_was_written_and_lets_the_adapter_change(slow: WorkerEngine, endless: Sampling) -> None:
    cancel = threading.Event()
    seen = []
    for event in stream(slow, Request(tuple(slow.tokenize("One")), endless), cancel):
        seen.append(event)
        if len(seen) == 4:
            cancel.set()
    assert isinstance(seen[-1], Finished)
    assert seen[-1].reason == "cancelled"
    assert seen[-1].usage.output_tokens == sum(len(e.tokens) for e in seen if isinstance(e, TextDelta))
    events = stream(slow, Request(tuple(slow.tokenize("One")), endless))
    next(events)
    events.close()  # type: ignore[attr-defined]
    slow.set_adapters([])
    assert answer(slow, "One")[1].reason in ("stop", "length")


def test_calls_are_answered_while_it_writes(slow: WorkerEngine, guide: LlamaEngine, endless: Sampling) -> None:
    request_id = slow.submit(Request(tuple(slow.tokenize("One")), endless))
    assert slow.encode_chat(CHAT) == guide.encode_chat(CHAT)
    assert request_id in slow._pending
    slow.cancel(request_id)
    assert ends(until_over(slow, request_id)) == {request_id: "cancelled"}


def test_text_is_turned_into_tokens_in_the_middle_of_a_step(guide_path: Path, guide: LlamaEngine) -> None:
    engine = Stuck.open(guide_path, n_ctx=256)
    try:
        request_id = engine.submit(Request(tuple(guide.tokenize("One")), Sampling(max_tokens=3)))
        assert engine.encode_chat(CHAT) == guide.encode_chat(CHAT)
        assert engine.detokenize(guide.tokenize("Two", add_special=False)) == "Two"
        assert engine.tokenize("go on") == guide.tokenize("go on")
        assert ends(until_over(engine, request_id))[request_id] in ("stop", "length")
    finally:
        engine.close()


def test_a_vocabulary_that_aborts_llama_cpp(stories: Path, tmp_path: Path) -> None:
    """Without tokens for bytes llama.cpp throws at a letter it does not know. Our check of them is left out here."""
    path = tmp_path / "no bytes.gguf"
    file = read_header(stories)
    known = enumerate(file.metadata["tokenizer.ggml.tokens"])
    words = Typed("string", [f"word{i}" if token.startswith("<0x") else token for i, token in known])
    kinds = Typed("i32", [1 if kind == 6 else kind for kind in file.metadata["tokenizer.ggml.token_type"]])
    copy_gguf(file, path, metadata={"tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": kinds})
    with pytest.raises(InvalidModelError, match="no token for the byte"):
        read_header(path)
    engine = Unchecked.open(path, n_threads=1)
    tokens = engine.tokenize("Once upon a time")
    with pytest.raises(EngineCrashedError, match=r"\(SIGABRT\) while it turned text into tokens: \S+") as caught:
        engine.tokenize("日本語")
    assert "\n" not in caught.value.message
    assert engine.tokenize("Once upon a time") == tokens
    engine.close()


def test_after_some_crashes_it_stays_down(guide_path: Path) -> None:
    engine = Careless.open(guide_path, n_ctx=64, n_threads=1)
    for _ in range(MAX_CRASHES + 1):
        with pytest.raises(EngineCrashedError, match=r"\(SIGABRT\) while it turned tokens into text: .*range"):
            engine.detokenize([NO_TOKEN])  # llama.cpp looks it up in a vector without a look at its size
    with pytest.raises(EngineCrashedError, match=f"died {MAX_CRASHES + 1} times in a row.*range"):
        engine.tokenize("a")
    engine.close()


def test_a_finished_answer_begins_the_count_anew(guide_path: Path) -> None:
    engine = Careless.open(guide_path, n_ctx=64, n_threads=1)
    with pytest.raises(EngineCrashedError):
        engine.detokenize([NO_TOKEN])
    assert engine._crashes > 0
    assert answer(engine, "One")[1].reason in ("stop", "length")
    assert engine._crashes == 0
    engine.close()


@pytest.mark.parametrize("token", [NO_TOKEN, -1])
def test_an_id_without_a_token_is_refused_and_kills_nothing(engine: WorkerEngine, token: int) -> None:
    before = engine.pid
    with pytest.raises(UsageError, match=f"{token} is no token of this model"):
        engine.detokenize([5, token])
    assert engine.pid == before


def test_a_child_that_dies_loading(guide_path: Path) -> None:
    with pytest.raises(EngineCrashedError, match=r"while it loaded guide\.gguf: .*GGML_ASSERT\(␛\[31mtrue\) failed\. "):
        Dying.open(guide_path)


def test_requests_fail_when_no_child_comes_up(guide_path: Path, endless: Sampling) -> None:
    engine = Slow.open(guide_path, n_ctx=64, n_threads=1)
    requests = [engine.submit(Request((5, 6), endless)) for _ in range(2)]
    kill(engine)
    engine.child = Dying.child  # type: ignore[misc]
    failed = until_over(engine, *requests)
    assert ends(failed) == dict.fromkeys(requests, "failed")
    assert "loaded guide.gguf" in failed[-1].message
    assert engine.step() == []
    engine.close()


def test_what_is_no_message_is_passed_over(guide_path: Path, guide: LlamaEngine) -> None:
    engine = Noisy.open(guide_path, n_ctx=1024, n_threads=1)
    assert answer(engine, "One")[0] == answer(guide, "One")[0]
    engine.close()


def test_a_message_without_an_end_is_a_crash(guide_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Flooding.open(guide_path, n_ctx=64, n_threads=1)
    monkeypatch.setattr(wire, "MAX_BYTES", 1 << 20)
    with pytest.raises(EngineCrashedError):
        engine.tokenize("a")
    engine.close()


def test_closing_ends_even_a_child_that_hangs(guide_path: Path) -> None:
    engine = WorkerEngine.open(guide_path, n_ctx=64, n_threads=1)
    pid = engine.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    engine.close()
    engine.close()
    assert not running(pid)


PARENT = """
import sys
from pathlib import Path
from localllm.engine.worker import WorkerEngine
from localllm.tasks.chat import open_chat
engine = WorkerEngine.open(Path(sys.argv[1]), n_ctx=64, n_threads=1)
print(engine.pid, *sorted({"llama_cpp", "numpy", "jinja2"} & sys.modules.keys()), flush=True)
sys.stdin.read()
"""


def test_the_child_ends_with_its_parent_which_never_loads_llama_cpp(guide_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(guide_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, *loaded = parent.stdout.readline().split()
        assert loaded == []
        assert running(int(pid))
        parent.kill()
        parent.wait()
        for _ in range(200):
            if not running(int(pid)):
                break
            threading.Event().wait(0.05)
    assert not running(int(pid))
