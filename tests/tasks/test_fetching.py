"""Picking from what a repository offers, and going on with a fetch that was left."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from localllm.errors import CancelledError, RemoteNotFoundError
from localllm.hub.events import Progress
from localllm.hub.surroundings import Surroundings
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks.fetching import fetch, forget, left, look_up, names_repository, request_for, rows_of
from localllm.tasks.pull import Pulled
from tests.hub.conftest import QUICK
from tests.hub.server import serving


@pytest.mark.parametrize("text, reference", [
    ("me/m", "me/m"), (" me/m:Q4_0 ", "me/m:Q4_0"), ("hf.co/me/m", "hf.co/me/m"), ("qwen3", ""), ("me/", ""),
    ("/etc/passwd", ""), ("a b/c", ""),
])  # fmt: skip
def test_only_what_can_be_a_repository_is_taken_for_one(text: str, reference: str) -> None:
    assert names_repository(text) == reference


def test_choices_are_rows_and_each_is_asked_for_by_what_tells_it_apart(tmp_path: Path, guide_path: Path) -> None:
    with serving() as server:
        here = Surroundings(server.endpoint, tmp_path / "hub", timeout=2.0)
        names = ("a-Q8_0.gguf", "b-Q8_0.gguf", "a-Q4_0.gguf")
        server.repo("me/m", dict.fromkeys(names, guide_path), tags=("license:mit",))
        offer = look_up("me/m", 1024, here=here, limits=QUICK)
        rows = rows_of(offer)
        assert {row.name for row in rows} == {"me/m:Q4_0", "me/m/a-Q8_0.gguf", "me/m/b-Q8_0.gguf"}
        assert {(row.context, row.n_ctx, row.said("license")) for row in rows} == {(2048, 1024, "mit")}
        assert all(row.needs and row.verdict for row in rows)
        assert request_for(offer, offer.choices[0], force=True).force
        with pytest.raises(RemoteNotFoundError):
            look_up("me/none", here=here, limits=QUICK)


def test_a_fetch_that_is_stopped_is_remembered_until_it_is_whole(tmp_path: Path, home: Home, guide_path: Path) -> None:
    registry = Registry(home)
    with serving() as server:
        here = Surroundings(server.endpoint, tmp_path / "hub", timeout=2.0)
        server.repo("me/m", {"m-Q4_0.gguf": guide_path})
        server.rate = 4_000_000
        offer = look_up("me/m", here=here, limits=QUICK)
        request, cancel = request_for(offer, offer.taken), threading.Event()
        with pytest.raises(CancelledError):
            for event in fetch(registry, request, cancel, here, QUICK):
                if isinstance(event, Progress) and event.done > 500_000:
                    cancel.set()
        assert left(home) == request
        forget(home)
        assert left(home) is None
        server.rate = 0
        last = list(fetch(registry, request, None, here, QUICK))[-1]
        assert isinstance(last, Pulled)
        assert last.kept >= 500_000
        assert left(home) is None
        assert not (home.root / "download.json").exists()
