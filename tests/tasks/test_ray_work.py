"""What goes to the machines of a cluster and comes back, with this process in the place of the machines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from localllm.engine import wire
from localllm.errors import CancelledError, EngineError
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.answer_local import local_answerer
from localllm.tasks.answer_ray import RayAnswerer, elsewhere
from localllm.tasks.batch import BatchRequest, Done, batch
from localllm.tasks.opening import open_model
from localllm.tasks.ray_nodes import Cluster, Work
from localllm.tasks.summarize import DocumentDone, SummarizeEvent, SummarizeRequest, summarize
from localllm.tasks.summary_prompts import Wish
from localllm.tasks.summary_ray import Machines, start
from localllm.tasks.summary_writer import EngineWriter
from localllm.types import Sampling
from tests.tasks.test_batch import chat, embed, write

OPTIONS = {"model": "guide", "adapter": None, "n_ctx": 512, "n_threads": 1, "n_slots": 2}


class Here(Cluster):
    """Does the work in this process, the last piece first, after a trip through JSON; `stop` is set after three."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop

    def spread(
        self, items: Sequence[str], work: Work, *, piece: int = 16, cancel: threading.Event | None = None
    ) -> Iterator[tuple[int, str]]:
        module, _, name = work.function.partition(":")
        worker = getattr(import_module(module), name)(**json.loads(json.dumps(work.arguments)))
        for first in reversed(range(0, len(items), piece)):
            if cancel is not None and cancel.is_set():
                return
            yield from enumerate(worker(items[first : first + piece]), first)
            if self._stop is not None and first <= len(items) - 3 * piece:
                self._stop.set()


@pytest.fixture
def registry(home: Home) -> Registry:
    return Registry(home)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    for i in range(8):
        (folder / f"{i}.txt").write_text(f"Note {i}. " + "The mill by the river was sold again. " * (1 + 6 * (i % 3)))
    (folder / "bad.txt").write_bytes(b"\0\0")
    return folder


def summaries(
    registry: Registry, notes: Path, out: Path, machines: Machines | None, cancel: threading.Event | None = None
) -> Iterator[SummarizeEvent]:
    opened = open_model(registry, "guide", n_ctx=512, n_threads=1, n_slots=2, worker=True, exact=True)
    sha256 = registry.sha256(opened.model.path)
    sampling = Sampling(max_tokens=16, logit_bias=((5, -1.5),), stop=("#",))
    wanted = SummarizeRequest(
        (notes,), out, "guide", sha256, sampling=sampling, wish=Wish(length="short"), part_tokens=100
    )
    try:
        yield from summarize(wanted, EngineWriter(opened.engine), cancel, machines)
    finally:
        opened.engine.close()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) | {"timings": None} for line in path.read_text().splitlines()]


def test_summaries_are_those_of_this_machine_and_in_their_order(
    registry: Registry, notes: Path, tmp_path: Path
) -> None:
    machines = Machines(Here(), {**OPTIONS, "exact": True})
    there = list(summaries(registry, notes, tmp_path / "there", machines))
    here = list(summaries(registry, notes, tmp_path / "here", None))
    assert rows(tmp_path / "there") == rows(tmp_path / "here")
    told = [[event.row["source"] for event in events if isinstance(event, DocumentDone)] for events in (there, here)]
    assert told[0] == told[1] == [str(notes / name) for name in (*(f"{i}.txt" for i in range(8)), "bad.txt")]
    totals = [(d.documents, d.failed, d.parts + d.reused) for d in (there[-1], here[-1])]
    assert totals[0] == totals[1]
    again = list(summaries(registry, notes, tmp_path / "there", machines))[-1]
    assert (again.skipped, again.parts) == (9, 0)


def test_stopping_keeps_the_rows_that_came(registry: Registry, notes: Path, tmp_path: Path) -> None:
    cancel = threading.Event()
    machines = Machines(Here(cancel), {**OPTIONS, "exact": True})
    with pytest.raises(CancelledError, match=r"4 of 9 documents are done\. .* run the same command again to go on"):
        list(summaries(registry, notes, tmp_path / "out", machines, cancel))
    names = {Path(row["source"]).name for row in rows(tmp_path / "out")}
    assert names == {"bad.txt", "5.txt", "6.txt", "7.txt"}
    machines = Machines(Here(), {**OPTIONS, "exact": True})
    assert list(summaries(registry, notes, tmp_path / "out", machines))[-1].skipped == 4
    assert [Path(row["source"]).stem for row in rows(tmp_path / "out")] == [*map(str, range(8)), "bad"]


def test_a_machine_that_would_make_other_summaries_is_refused(registry: Registry) -> None:
    wanted = SummarizeRequest((), None, "guide", "0" * 64, sampling=Sampling(max_tokens=16))
    with pytest.raises(EngineError, match="another model or adapter of that name"):
        start({**OPTIONS, "exact": True}, wire.encode(wanted).decode(), "settings")


def test_a_batch_has_the_rows_of_this_machine(registry: Registry, tmp_path: Path) -> None:
    lines = [chat(f"r{i}", "Who are you?", max_tokens=6 + i) for i in range(20)]
    write(tmp_path / "in.jsonl", *lines, embed("e", "hello"), chat("bad", "x", top_p=2))
    found: dict[str, list[str]] = {}
    for where in ("there", "here"):
        local = local_answerer(registry, **OPTIONS)  # type: ignore[arg-type]
        answerer = RayAnswerer(Here(), local, OPTIONS) if where == "there" else local
        *_, done = batch(BatchRequest(tmp_path / "in.jsonl", tmp_path / where), answerer)
        answerer.close()
        assert isinstance(done, Done)
        assert (done.requests, done.failed) == (22, 1)
        found[where] = sorted((tmp_path / where).read_text().splitlines())
    assert found["there"] == found["here"]
    stranger = RayAnswerer(Here(), local, {**OPTIONS, "n_ctx": 64})
    with pytest.raises(EngineError, match="another model or adapter of that name"):
        list(batch(BatchRequest(tmp_path / "in.jsonl", tmp_path / "other"), stranger))


def test_a_path_is_said_in_full_and_a_name_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert (elsewhere("m.gguf"), elsewhere("guide")) == (str(tmp_path / "m.gguf"), "guide")
