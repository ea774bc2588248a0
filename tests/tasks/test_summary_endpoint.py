"""Summaries by a server: the same parts and rows as by an engine that has its tokens, and nothing cut off unsaid."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localllm.errors import CancelledError, EngineError, GrammarError, UsageError
from localllm.tasks.endpoint_client import Client, Endpoint, UnreachableError
from localllm.tasks.endpoint_served import introduce
from localllm.tasks.summarize import DocumentDone, Done, PartDone, SummarizeRequest, summarize
from localllm.tasks.summary_endpoint import EndpointWriter
from localllm.tasks.summary_prompts import Wish
from localllm.tasks.summary_writer import EngineWriter
from localllm.types import Sampling
from tests.tasks.side_by_side import SideBySide
from tests.tasks.summary_server import SummaryServer, serving
from tests.tasks.test_answer_endpoint import KEY
from tests.tasks.test_summarize import rows, shorten

_OF_A_SERVER = ("model", "endpoint", "model_sha256", "settings")


@pytest.fixture
def server() -> Iterator[SummaryServer]:
    with serving(shorten) as server:
        yield server


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Six notes of one to six paragraphs."""
    folder = tmp_path / "notes"
    folder.mkdir()
    for i in range(6):
        text = "\n\n".join(f"Note {i}.{j} " + "größere Wörter " * 10 for j in range(1 + i))
        (folder / f"{i}.txt").write_text(text)
    return folder


def client(server: SummaryServer, **options: Any) -> Client:
    return Client(Endpoint(server.url, **{"first_wait": 0.001, "timeout": 10.0, "parallel": 3, "key": KEY, **options}))


def run(server: SummaryServer, request: SummarizeRequest, n_ctx: int | None = None, **changes: Any) -> Done:
    asking = client(server)
    try:
        served = introduce(asking, n_ctx)
        wanted = replace(request, model=served.model, endpoint=server.url, **changes)
        done = list(summarize(wanted, EndpointWriter(asking, served)))[-1]
    finally:
        asking.close()
    assert isinstance(done, Done)
    return done


def request(*paths: Path, out: Path | None, **changes: Any) -> SummarizeRequest:
    basis = SummarizeRequest(paths, out, "", None, part_tokens=200, sampling=Sampling(max_tokens=80))
    return replace(basis, **changes)


def without_origin(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in _OF_A_SERVER} for row in rows(path)]


@pytest.mark.parametrize("kind", ["llama", "vllm"])
@pytest.mark.parametrize("strategy", ["auto", "refine"])
def test_rows_are_those_of_an_engine_with_the_same_tokens(
    notes: Path, tmp_path: Path, kind: str, strategy: Any
) -> None:
    with serving(shorten, kind) as server:
        done = run(server, request(notes, out=tmp_path / "a", strategy=strategy))
        asked = sorted(server.asked)
        by_engine = request(notes, out=tmp_path / "b", strategy=strategy)
        engine = SideBySide(shorten)
        list(summarize(by_engine, EngineWriter(engine)))
        assert without_origin(tmp_path / "a") == without_origin(tmp_path / "b")
        assert asked == sorted(
            ["Two words.", *(p.removeprefix("<user>").removesuffix("<assistant>") for p in engine.asked)]
        )
        assert done.failed == 0
        first = rows(tmp_path / "a")[0]
        assert (first["model"], first["model_sha256"], first["endpoint"]) == ("chars", None, server.url)
        server.asked.clear()
        assert run(server, request(notes, out=tmp_path / "a", strategy=strategy)).skipped == 6
        assert server.asked == ["Two words."]


def test_a_server_that_counts_nothing_is_never_asked_for_too_much(notes: Path, tmp_path: Path) -> None:
    """It would refuse what is longer than its context. Bytes are more than characters here, so parts are smaller."""
    with serving(shorten, "plain") as server:
        with pytest.raises(UsageError, match=r"does not say how long its context is.*--ctx N"):
            run(server, request(notes, out=None))
        done = run(server, request(notes, out=tmp_path / "a", part_tokens=None), n_ctx=600)
        assert (done.documents, done.failed) == (6, 0)
        for row in rows(tmp_path / "a"):
            text = Path(row["source"]).read_text()
            assert "".join(text[p["start"] : p["end"]] for p in row["parts"]) == text
            assert all(p["tokens"] == len(text[p["start"] : p["end"]].encode()) for p in row["parts"])
        server.says_usage = False
        assert introduce(client(server), 600).frame == 256


def test_a_vocabulary_of_this_machine_may_count_instead(server: SummaryServer) -> None:
    served = introduce(client(server), None, ("m", lambda text: 7))
    assert (served.count("any"), served.exact, served.counted_by) == (7, False, "the vocabulary of m")


def test_what_a_server_does_not_tell_is_asked_for(server: SummaryServer) -> None:
    with pytest.raises(UsageError, match=r"--ctx 601 is not possible: .* has a context of 600 tokens"):
        introduce(client(server), 601)
    assert introduce(client(server), 500).n_ctx == 500
    server.models = ["a", "b"]
    with pytest.raises(UsageError, match=r"serves 2 models: a, b\. Name one with --endpoint-model"):
        introduce(client(server))
    assert introduce(client(server, model="b")).model == "b"
    server.models = []
    with pytest.raises(UsageError, match="does not say which models"):
        introduce(client(server))
    server.refuses = "Two"
    with pytest.raises(EngineError, match=r"does not answer\. The server said 400: no, not that"):
        introduce(client(server, model="b"))
    with pytest.raises(UnreachableError, match=r"refuses the key \(401\)"):
        introduce(client(server, model="b", key="wrong"))


def test_a_text_that_is_cut_off_by_the_server_is_an_error(server: SummaryServer, notes: Path, tmp_path: Path) -> None:
    server.cuts = 150
    done = run(server, request(notes, out=tmp_path / "a"))
    assert done.failed == 6
    assert "took in 150 tokens of a prompt that has" in rows(tmp_path / "a")[0]["error"]


def test_what_a_server_refuses_costs_its_document_and_is_asked_once(
    server: SummaryServer, notes: Path, tmp_path: Path
) -> None:
    server.refuses = "Note 3.1"
    assert run(server, request(notes, out=tmp_path / "a")).failed == 1
    errors = [row["error"] for row in rows(tmp_path / "a")]
    assert [bool(error) for error in errors] == [i == 3 for i in range(6)]
    assert "The server said 400: no, not that" in errors[3]
    assert sum("Note 3.1" in prompt for prompt in server.asked) == 1
    server.refuses = "\0"
    assert run(server, request(notes, out=tmp_path / "a"), retry_failed=True).failed == 0


@pytest.mark.parametrize("dies", ["before", "within"])
def test_a_server_that_goes_away_ends_the_run_and_the_next_goes_on(
    server: SummaryServer, notes: Path, tmp_path: Path, dies: str
) -> None:
    asking = client(server)
    served = introduce(asking)
    wanted = request(notes, out=tmp_path / "a", model=served.model, endpoint=server.url)
    begun = summarize(wanted, EndpointWriter(asking, served))
    parts = 0
    with pytest.raises(UnreachableError, match="does not answer"):
        for event in begun:
            parts += isinstance(event, PartDone)
            server.dead = dies == "before" or parts >= 7
    asking.close()
    server.dead = False
    lost = [row for row in rows(tmp_path / "a") if row["error"]]
    assert len(lost) <= 2, "of all requests on their way, those that found out that the server is gone"
    done = run(server, request(notes, out=tmp_path / "a", retry_failed=True))
    assert (done.documents, done.failed) == (6, 0)
    if dies == "within":
        assert done.reused + done.skipped > 0
    run(server, request(notes, out=tmp_path / "b"))
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_stopping_waits_for_nothing_and_answers_are_kept(server: SummaryServer, notes: Path, tmp_path: Path) -> None:
    cancel, asking = threading.Event(), client(server)
    served = introduce(asking)
    wanted = request(notes, out=tmp_path / "a", model=served.model, endpoint=server.url)
    answered = 0
    with pytest.raises(CancelledError, match="run the same command again"):
        for event in summarize(wanted, EndpointWriter(asking, served), cancel):
            answered += isinstance(event, PartDone)
            if answered == 5:
                cancel.set()
                server.delay = 5.0
    asking.close()
    server.delay = 0.0
    before = len(rows(tmp_path / "a"))
    done = run(server, request(notes, out=tmp_path / "a"))
    assert (done.skipped, done.failed) == (before, 0)
    assert before + done.reused >= 3


def test_a_document_that_takes_too_long_is_given_up(server: SummaryServer, notes: Path) -> None:
    asking = client(server)
    served = introduce(asking)
    server.delay = 1.0
    wanted = request(notes / "0.txt", out=None, model="m", endpoint=server.url, timeout=0.1)
    errors = [e.row["error"] for e in summarize(wanted, EndpointWriter(asking, served)) if isinstance(e, DocumentDone)]
    asking.close()
    assert len(errors) == 1
    assert "longer than 0.1 s" in errors[0]


def test_settings_reach_the_server_and_a_schema_is_tried_first(server: SummaryServer, notes: Path) -> None:
    asking = client(server)
    writer = EndpointWriter(asking, introduce(asking))
    sampling = Sampling(temperature=0.5, top_k=3, repeat_penalty=1.1, seed=4, max_tokens=9, stop=("x",))
    writer.submit("Hello.", replace(sampling, json_schema='{"type": "object"}'), None)
    while not writer.step():
        pass
    body = server.bodies[-1]
    schema = {"type": "json_schema", "json_schema": {"name": "summary", "strict": True, "schema": {"type": "object"}}}
    assert body == {
        "model": "chars", "messages": [{"role": "user", "content": "Hello."}], "temperature": 0.5, "max_tokens": 9,
        "seed": 4, "stop": ["x"], "top_k": 3, "repeat_penalty": 1.1, "repetition_penalty": 1.1,
        "response_format": schema,
    }  # fmt: skip
    asking.close()
    server.refuses = "schema"
    with pytest.raises(GrammarError, match=r"schema cannot be used\. The server said 400"):
        run(server, request(notes, out=None, wish=Wish(schema='{"type": "object"}')))
    with pytest.raises(GrammarError, match="not valid JSON"):
        run(server, request(notes, out=None, wish=Wish(schema="{")))
