"""Batches of requests: every one gets a row, once, and a second run goes on where the first was left."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localllm.engine.base import Engine, Request, TextDelta, stream
from localllm.engine.embedding import Embedder
from localllm.engine.fake import FakeEngine
from localllm.engine.llama import LlamaEngine
from localllm.engine.worker import WorkerEngine
from localllm.engine.worker_embedding import WorkerEmbedder
from localllm.errors import CancelledError, DataError, EngineCrashedError, StorageError, UsageError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.answer_local import LocalAnswerer, local_answerer
from localllm.tasks.batch import BatchRequest, Done, RequestDone, Started, batch
from localllm.types import Message, Sampling

Row = dict[str, Any]


def chat(custom_id: str, text: str, **body: Any) -> Row:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def embed(custom_id: str, given: Any, **body: Any) -> Row:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": {"input": given, **body}}


def write(path: Path, *lines: Row | str) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def rows(path: Path) -> dict[str | None, Row]:
    return {row["custom_id"]: row for row in map(json.loads, path.read_text().splitlines())}


def content(row: Row) -> str:
    return str(row["response"]["body"]["choices"][0]["message"]["content"])


def no_embedder() -> WorkerEmbedder:
    raise AssertionError("nothing is to be embedded")


def scripted(engine: Engine, **settings: Any) -> LocalAnswerer:
    return LocalAnswerer("fake", settings, lambda: engine, no_embedder)


def shouting() -> FakeEngine:
    return FakeEngine(script=[lambda prompt: prompt.rpartition("<assistant>")[0].rpartition(">")[2].upper()])


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Started, list[Row], Done]]:
    def run(answerer: Any, *, retry_failed: bool = False) -> tuple[Started, list[Row], Done]:
        request = BatchRequest(tmp_path / "in.jsonl", tmp_path / "out.jsonl", retry_failed)
        started, *items, done = batch(request, answerer)
        assert isinstance(started, Started)
        assert isinstance(done, Done)
        return started, [item.row for item in items if isinstance(item, RequestDone)], done

    return run


def test_rows_have_openais_shape(tmp_path: Path, run: Any) -> None:
    write(tmp_path / "in.jsonl", chat("a", "hello", max_tokens=3))
    _, _, done = run(scripted(shouting()))
    row = rows(tmp_path / "out.jsonl")["a"]
    assert row.keys() == {"id", "custom_id", "response", "error"}
    assert row["error"] is None
    assert row["response"]["status_code"] == 200
    body = row["response"]["body"]
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "HEL"}, "logprobs": None, "finish_reason": "length"}
    ]
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (done.prompt_tokens, done.output_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])


def test_what_is_wrong_is_a_row_and_the_others_go_on(tmp_path: Path, run: Any) -> None:
    other = {"custom_id": "url", "method": "POST", "url": "/v1/images", "body": {}}
    write(
        tmp_path / "in.jsonl", "nonsense", chat("a", "hello"), "", chat("a", "again"), "[1]", {"body": {}}, other,
        chat("long", "x" * 5000), chat("field", "x", audio={}), chat("bias", "x", logit_bias={"2000000": 1}),
        chat("b", "bye"),
    )  # fmt: skip
    started, items, done = run(scripted(shouting()))
    assert (started.requests, done.failed, len(items)) == (10, 8, 10)
    found = rows(tmp_path / "out.jsonl")
    assert content(found["a"]) == "HELLO"
    assert content(found["b"]) == "BYE"
    assert found["long"]["error"]["code"] == "context_length_exceeded"
    assert '"audio"' in found["field"]["error"]["message"]
    lines = {row["error"]["line"]: row["error"]["message"] for row in items if row["custom_id"] is None}
    assert lines.keys() == {1, 4, 5, 6}
    assert "that of line 2 too" in lines[4]
    assert all(row["response"] is None for row in items if row["error"])


def test_a_second_run_answers_only_what_is_new_or_changed(tmp_path: Path, run: Any) -> None:
    source = write(tmp_path / "in.jsonl", chat("a", "one"), chat("b", "two"), "broken", chat("bad", "x", audio={}))
    run(scripted(shouting()))
    before = (tmp_path / "out.jsonl").read_bytes()
    engine = shouting()
    started, items, done = run(scripted(engine))
    assert (started.skipped, items, done.failed, engine.prompts) == (4, [], 2, [])
    assert (tmp_path / "out.jsonl").read_bytes() == before
    write(source, chat("b", "two", temperature=0.5), chat("a", "one"), chat("bad", "mended"), chat("c", "three"))
    _, items, done = run(scripted(shouting()))
    assert sorted(row["custom_id"] for row in items) == ["b", "bad", "c"]
    assert done.failed == 0
    assert {key: content(row) for key, row in rows(tmp_path / "out.jsonl").items()} == {
        "a": "ONE", "b": "TWO", "bad": "MENDED", "c": "THREE",
    }  # fmt: skip
    _, items, _ = run(scripted(shouting(), model_sha256="another"))
    assert len(items) == 4


def test_failed_requests_are_tried_again_only_when_asked_for(tmp_path: Path, run: Any) -> None:
    write(tmp_path / "in.jsonl", chat("a", "one"), chat("bad", "x", n=3))
    run(scripted(shouting()))
    _, items, done = run(scripted(shouting()))
    assert (items, done.failed) == ([], 1)
    _, items, done = run(scripted(shouting()), retry_failed=True)
    assert [row["custom_id"] for row in items] == ["bad"]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2


def test_rows_of_another_file_of_requests_stay(tmp_path: Path, run: Any) -> None:
    write(tmp_path / "in.jsonl", chat("a", "one"))
    run(scripted(shouting()))
    write(tmp_path / "in.jsonl", chat("b", "two"))
    run(scripted(shouting()))
    assert rows(tmp_path / "out.jsonl").keys() == {"a", "b"}


def test_stopping_keeps_what_is_finished_and_says_how_to_go_on(tmp_path: Path, run: Any) -> None:
    write(tmp_path / "in.jsonl", *(chat(f"r{i}", f"text {i}") for i in range(9)))
    cancel = threading.Event()
    with pytest.raises(CancelledError, match=r"2 of 9 requests are finished and kept; run the same command again"):
        for event in batch(BatchRequest(tmp_path / "in.jsonl", tmp_path / "out.jsonl"), scripted(shouting()), cancel):
            if isinstance(event, RequestDone) and event.row["custom_id"] == "r1":
                cancel.set()
    assert rows(tmp_path / "out.jsonl").keys() == {"r0", "r1"}
    run(scripted(shouting()))
    assert rows(tmp_path / "out.jsonl").keys() == {f"r{i}" for i in range(9)}


def test_requests_are_read_as_there_is_room_for_them(tmp_path: Path) -> None:
    answerer, taken = scripted(shouting()), []
    from localllm.tasks.batch_requests import read_lines

    def questions() -> Iterator[Any]:
        for line in read_lines(write(tmp_path / "in.jsonl", *(chat(f"r{i}", "x") for i in range(99))), {}):
            taken.append(line)
            yield line.question

    next(iter(answerer.answer(questions())))
    assert len(taken) <= 2


def test_what_cannot_work_is_said_before_anything_is_written(tmp_path: Path, run: Any) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        run(scripted(shouting()))
    write(tmp_path / "in.jsonl")
    with pytest.raises(UsageError, match="holds no requests"):
        run(scripted(shouting()))
    write(tmp_path / "in.jsonl", chat("a", "x"))
    with pytest.raises(UsageError, match="over the requests"):
        list(batch(BatchRequest(tmp_path / "in.jsonl", tmp_path / "in.jsonl"), scripted(shouting())))
    (tmp_path / "out.jsonl").unlink()
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        run(scripted(shouting()))


def test_an_engine_that_dies_again_and_again_ends_the_run(tmp_path: Path, run: Any) -> None:
    class Dead(FakeEngine):
        def submit(self, request: Request) -> int:
            raise EngineCrashedError("The engine died.", "Start again.")

    write(tmp_path / "in.jsonl", *(chat(f"r{i}", "x") for i in range(50)))
    with pytest.raises(EngineCrashedError):
        run(scripted(Dead()))
    assert len(rows(tmp_path / "out.jsonl")) == 3


@pytest.fixture
def local(home: Home) -> Iterator[LocalAnswerer]:
    answerer = local_answerer(Registry(home), "guide", n_ctx=512, n_threads=1, n_slots=4)
    yield answerer
    answerer.close()


def test_answers_are_those_of_one_request_at_a_time(
    tmp_path: Path, run: Any, local: LocalAnswerer, guide: LlamaEngine
) -> None:
    prompts = [f"What is {what}?" for what in ("an adapter", "a token", "a context", "the loss", "a GGUF", "your name")]
    write(tmp_path / "in.jsonl", *(chat(p, p, max_tokens=12) for p in prompts))
    run(local)
    found = rows(tmp_path / "out.jsonl")
    for prompt in prompts:
        request = Request(tuple(guide.encode_chat([Message("user", prompt)])), Sampling(max_tokens=12))
        alone = "".join(event.text for event in stream(guide, request) if isinstance(event, TextDelta))
        assert content(found[prompt]) == alone


def test_answers_keep_to_a_schema_and_embeddings_are_unit_vectors(
    tmp_path: Path, run: Any, local: LocalAnswerer, guide_path: Path
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    write(
        tmp_path / "in.jsonl",
        chat("schema", "Count.", response_format=form, max_tokens=40, logit_bias={"5": 1}),
        embed("texts", ["hello world", "bye"]),
        embed("base64", "bye", encoding_format="base64"),
        embed("short", "bye", dimensions=8),
        embed("long", "word " * 3000),
        chat("top", "x", top_p=2),
    )
    _, _, done = run(local)
    found = rows(tmp_path / "out.jsonl")
    assert isinstance(json.loads(content(found["schema"]))["n"], int)
    body = found["texts"]["response"]["body"]
    first, second = (np.array(one["embedding"], np.float32) for one in body["data"])
    assert [one["index"] for one in body["data"]] == [0, 1]
    assert np.linalg.norm(second) == pytest.approx(1, abs=1e-6)
    packed = base64.b64decode(found["base64"]["response"]["body"]["data"][0]["embedding"])
    assert np.array_equal(np.frombuffer(packed, "<f4"), second)
    embedder = Embedder.open(guide_path, 512, 1)
    assert np.array_equal(embedder.embed(embedder.tokenize("hello world")), first)
    embedder.close()
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 2
    assert '"dimensions"' in found["short"]["error"]["message"]
    assert found["long"]["error"]["code"] == "context_length_exceeded"
    assert found["top"]["error"]["code"] == "invalid_request"
    assert done.failed == 3


class Slow(WorkerEngine):
    child = ("tests.engine.strange_child", "slow")


def test_a_crash_costs_what_is_on_its_way_and_a_retry_mends_it(tmp_path: Path, run: Any, guide_path: Path) -> None:
    write(tmp_path / "in.jsonl", *(chat(f"r{i}", f"Tell me of {i}.", max_tokens=6, temperature=1) for i in range(8)))
    engine = Slow.open(guide_path, n_ctx=256, n_threads=1, n_slots=2)
    request = BatchRequest(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    killed = False
    for event in batch(request, scripted(engine)):
        if isinstance(event, RequestDone) and not killed and engine.pid:
            killed = True
            os.kill(engine.pid, signal.SIGKILL)
    found = rows(tmp_path / "out.jsonl")
    failed = [row for row in found.values() if row["error"]]
    assert found.keys() == {f"r{i}" for i in range(8)}
    assert 1 <= len(failed) <= 2
    assert all(row["error"]["code"] == "engine_error" for row in failed)
    assert run(scripted(engine), retry_failed=True)[2].failed == 0
    engine.close()


class Deadly(WorkerEmbedder):
    child = ("tests.engine.strange_child", "dying_of_a_text")


def test_a_text_that_kills_the_embedding_costs_itself(tmp_path: Path, run: Any, guide_path: Path) -> None:
    """Crashes with answers in between are not counted together; those in a row end the run."""
    texts = ["a", "deadly", "b", "deadly", "deadly", "c", "deadly", "d"]
    write(tmp_path / "in.jsonl", *(embed(f"r{i}", text) for i, text in enumerate(texts)))
    deadly = LocalAnswerer("fake", {}, shouting, lambda: Deadly.open(guide_path, 64, 1))
    _, _, done = run(deadly)
    found = rows(tmp_path / "out.jsonl")
    assert [bool(found[f"r{i}"]["error"]) for i in range(8)] == [text == "deadly" for text in texts]
    assert found["r1"]["error"]["code"] == "engine_error"
    assert "GGML_ASSERT" in found["r1"]["error"]["message"]
    assert done.failed == 4
    write(tmp_path / "in.jsonl", *(embed(f"s{i}", "deadly") for i in range(8)))
    with pytest.raises(EngineCrashedError):
        run(deadly)
    assert len(rows(tmp_path / "out.jsonl")) == 8 + 3
    deadly.close()


def test_a_held_output_is_refused(tmp_path: Path, run: Any) -> None:
    write(tmp_path / "in.jsonl", chat("a", "x"))
    first = batch(BatchRequest(tmp_path / "in.jsonl", tmp_path / "out.jsonl"), scripted(shouting()))
    next(first)
    with pytest.raises(StorageError, match=str(os.getpid())):
        run(scripted(shouting()))
    first.close()
    run(scripted(shouting()))
