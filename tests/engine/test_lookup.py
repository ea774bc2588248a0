"""Drafts from the text so far: the same answers, in fewer batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from localllm.engine.backend import Group
from localllm.engine.base import Finished, Request, TextDelta, stream
from localllm.engine.llama import LlamaEngine
from localllm.engine.lookup import MOST_DRAFTED, Lookup, worthwhile
from localllm.types import Sampling
from tests.engine.helpers import never_ending
from tests.engine.scripted_backend import END, Room
from tests.engine.test_scheduler import prompt


def repeating(tokens: Sequence[int], group: Group) -> int:
    """A model that says what it said seven tokens before, but for every eleventh token."""
    return 3 + len(tokens) if len(tokens) % 11 == 0 else tokens[-7]


def expected(first: Sequence[int], n: int) -> list[int]:
    tokens = list(first)
    for _ in range(n):
        tokens.append(repeating(tokens, ()))
    return tokens[len(first) :]


@pytest.mark.parametrize("n_output", [1, 2, 3, 40, 100])
def test_answers_with_drafts_are_those_without_in_fewer_batches(n_output: int) -> None:
    room = Room(n_slots=1)
    room.backend.model = repeating
    room.submit(prompt(0, 20), n_output, drafts=True)
    room.run()
    assert room.tokens(1) == expected(prompt(0, 20), n_output)
    assert room.backend.held[0] == [*prompt(0, 20), *room.tokens(1)][:-1]
    if n_output == 100:
        assert len(room.backend.batches) < 80


def test_a_draft_goes_neither_beyond_the_context_nor_beyond_the_limit() -> None:
    room = Room(n_slots=1, n_ctx=60)
    room.backend.model = lambda tokens, group: tokens[-3]
    room.submit(prompt(0, 20), 1000, drafts=True)
    room.run()
    assert len(room.tokens(1)) == 41
    room.submit(prompt(1, 20), 13, drafts=True)
    room.run()
    assert len(room.tokens(2)) == 13
    assert all(part.start + len(part.tokens) <= 60 for batch in room.backend.batches for part in batch)


def test_an_answer_that_ends_within_a_draft_ends_there() -> None:
    room = Room(n_slots=1)
    room.backend.model = lambda tokens, group: END if len(tokens) == 43 else tokens[-5]
    room.submit(prompt(0, 20), 100, drafts=True)
    room.run()
    assert len(room.tokens(1)) == 23
    assert room.end(1).reason == "stop"
    first = room.tokens(1)
    room.submit([*prompt(0, 20), *first, 9], 4, drafts=True)
    room.run()
    assert room.end(2).usage.cached_tokens >= 42


def test_many_answers_at_once_are_decoded_without_drafts() -> None:
    room = Room(n_slots=4)
    room.backend.model = repeating
    for i in range(4):
        room.submit(prompt(i, 10), 30, drafts=True)
    room.run()
    for i in range(4):
        assert room.tokens(i + 1) == expected(prompt(i, 10), 30)
    assert all(part.rows <= 1 for batch in room.backend.batches[:20] for part in batch)


def test_drafting_stops_where_drafts_are_wrong_and_is_tried_again() -> None:
    tokens = [5, 6, 7, 8] * 3
    lookup = Lookup(tokens)
    assert lookup.draft(8) == [5]
    lookup.learn(1, 1)
    lookup.learn(1, 1)
    assert lookup.draft(8)[:2] == [5, 6]
    for _ in range(3):
        lookup.learn(2, 0)
    assert worthwhile(lookup.share) == 0
    silent = 0
    while not lookup.draft(8):
        silent += 1
    assert 5 < silent < 100


def test_the_last_place_where_a_phrase_occurred_counts() -> None:
    assert Lookup([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3]).draft(1) == [5]
    assert Lookup([9, 2, 3, 4, 1, 2, 3]).draft(1) == [4]
    assert Lookup([1, 2, 3]).draft(1) == []
    assert Lookup([1]).draft(1) == []


def test_more_is_drafted_the_surer_it_is() -> None:
    counts = [worthwhile(share / 20) for share in range(21)]
    assert counts == sorted(counts)
    assert (counts[0], counts[10], counts[-1]) == (0, 0, MOST_DRAFTED)


@pytest.mark.parametrize("name", ["stories", "guide_path"])
def test_greedy_text_of_real_models_is_the_same_with_drafts(name: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(name)
    engine = LlamaEngine.open(path, n_ctx=512, n_threads=1)
    bias = never_ending(engine)
    for text in ("Once upon a time, Tim and Lily went to the park. Tim and Lily", "The harbour was built in 1901. The"):
        tokens = tuple(engine.tokenize(text))
        texts, deltas = [], []
        for lookup in (False, True):
            engine._scheduler.forget()
            sampling = Sampling(max_tokens=200, logit_bias=bias)
            events = list(stream(engine, Request(tokens, sampling, lookup=lookup)))
            assert isinstance(events[-1], Finished)
            assert events[-1].usage.output_tokens == 200
            found = [e for e in events if isinstance(e, TextDelta) and e.tokens]
            texts.append([t for e in found for t in e.tokens])
            deltas.append(len(found))
        assert texts[0] == texts[1]
        assert deltas[1] < deltas[0] == 200
    engine.close()
