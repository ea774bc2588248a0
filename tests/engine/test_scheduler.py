"""What goes into each batch, without a model: joining, leaving, sharing, waiting, failing."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from localllm.engine.base import Failed, Finished, Prefilled
from localllm.engine.scheduler import PATIENCE
from localllm.engine.slots import common_prefix
from tests.engine.scripted_backend import Room, alone

ADAPTER = (("a", 1.0),)
OTHER = (("b", 1.0),)


def prompt(seed: int, length: int = 20) -> list[int]:
    random_ = random.Random(seed)
    return [random_.randrange(3, 1000) for _ in range(length)]


def test_requests_join_and_leave_at_any_step_and_each_gets_its_own_answer() -> None:
    room = Room(n_slots=3)
    lengths = [3, 9, 1, 6, 4, 12, 2]
    for i, n in enumerate(lengths):
        room.submit(prompt(i, 5 + 7 * i), n)
        room.step()
    room.run()
    for i, n in enumerate(lengths):
        assert room.tokens(i + 1) == alone(prompt(i, 5 + 7 * i), n)
        assert room.end(i + 1).reason == "length"
    assert max(len(batch) for batch in room.backend.batches) == 3
    assert all(sampler.closed == 1 for sampler in room.samplers)


def sizes(room: Room) -> list[list[int]]:
    """Tokens of each part of each batch."""
    return [[len(part.tokens) for part in batch] for batch in room.backend.batches]


def test_every_answer_goes_on_while_a_long_prompt_is_read() -> None:
    room = Room(n_batch=70)
    for i in range(3):
        room.submit(prompt(i, 8), 50)
    room.step()
    room.submit(prompt(9, 150), 2)
    for expected in ([70], [70], [10]):
        room.step()
        assert sizes(room)[-2:] == [[1, 1, 1], expected]
    assert [e.done for e in room.events if isinstance(e, Prefilled) and e.request_id == 4] == [70, 140, 150]


def test_a_step_reads_no_more_than_a_batch_takes() -> None:
    room = Room(n_slots=3, n_batch=64)
    for i in range(3):
        room.submit(prompt(i, 30), 3)
    room.run()
    assert sizes(room)[:3] == [[21, 21, 21], [9, 9, 9], [1, 1, 1]]


def test_prompts_in_neighbouring_slots_are_read_together_and_the_others_after_them() -> None:
    room = Room(n_slots=6, n_ctx=1000, n_batch=512)
    lengths = (600, 600, 600, 600, 20, 22)
    for i, length in enumerate(lengths):
        room.submit(prompt(i, length), 2)
    room.step()
    assert sizes(room) == [[512]]
    room.step()
    assert sizes(room)[1:] == [[88] * 4, [20, 20]]
    room.run()
    assert all(room.tokens(i + 1) == alone(prompt(i, n), 2) for i, n in enumerate(lengths))
    assert all(sum(batch) <= 512 for batch in sizes(room))


def test_a_prompt_between_answers_is_read_without_them() -> None:
    room = Room(n_slots=3, n_ctx=400, n_batch=128)
    for i, (length, n) in enumerate(((8, 30), (8, 3), (8, 30))):
        room.submit(prompt(i, length), n)
    while not room.order():
        room.step()
    room.submit(prompt(9, 100), 2)
    before = len(room.backend.batches)
    room.step()
    assert sizes(room)[before:] == [[1, 1], [100]]
    assert [[part.slot for part in batch] for batch in room.backend.batches[before:]] == [[0, 2], [1]]


def test_a_shared_beginning_is_computed_once() -> None:
    room = Room(n_slots=4, n_batch=64)
    instruction = prompt(0, 50)
    prompts = [instruction + prompt(i, 10) for i in range(1, 7)]
    for p in prompts:
        room.submit(p, 4)
    room.run()
    for i, p in enumerate(prompts, 1):
        assert room.tokens(i) == alone(p, 4)
        assert room.end(i).usage.cached_tokens == (0 if i == 1 else 50)
    # Each request decodes its answer but for the last token.
    assert room.backend.computed() == 50 + 6 * 10 + 6 * 3


def test_a_request_waits_for_a_beginning_that_is_being_read_but_others_do_not() -> None:
    room = Room(n_slots=4, n_batch=80)
    long = prompt(0, 190)
    room.submit([*long, 5], 2)
    room.submit([*long, 6], 2)
    other = room.submit(prompt(3, 10), 2)
    room.step()
    assert len(room.backend.batches[0]) == 1
    room.run()
    assert room.order().index(other) < room.order().index(2)
    assert room.end(2).usage.cached_tokens == 190
    assert room.tokens(2) == alone([*long, 6], 2)


def test_a_short_common_beginning_is_neither_copied_nor_waited_for() -> None:
    room = Room(n_batch=80)
    for i in range(3):
        room.submit(prompt(0, 12) + prompt(i, 10), 2)
    room.run()
    assert room.backend.copies == []
    assert len(room.backend.batches[0]) == 3


def test_what_a_slot_holds_from_before_is_used_where_it_lies() -> None:
    room = Room(n_slots=2)
    first = prompt(1, 60)
    room.submit(first, 5)
    room.run()
    second = [*first, *room.tokens(1), *prompt(2, 9)]
    room.submit(prompt(3, 30), 3)
    room.submit(second, 3)
    room.run()
    assert room.end(3).usage.cached_tokens == 60 + 4
    assert room.backend.copies == []
    assert room.tokens(3) == alone(second, 3)


def test_a_memory_that_cannot_forget_a_part_is_used_whole_or_not_at_all() -> None:
    room = Room(n_slots=1, can_trim=False)
    first = prompt(1, 60)
    room.submit(first, 5)
    room.run()
    whole = [*first, *room.tokens(1)]
    room.submit([*whole, 7], 3)
    room.submit(first[:50], 3)
    room.run()
    assert room.end(2).usage.cached_tokens == 64
    assert room.end(3).usage.cached_tokens == 0
    assert room.tokens(2) == alone([*whole, 7], 3)
    assert room.tokens(3) == alone(first[:50], 3)


def test_only_requests_with_the_same_adapters_run_together() -> None:
    room = Room(n_slots=4)
    groups = [(), ADAPTER, (), OTHER, ADAPTER, ()]
    for i, group in enumerate(groups):
        room.submit(prompt(7), 3, group)
        assert i + 1 == len(room.samplers)
    room.run()
    for i, group in enumerate(groups, 1):
        assert room.tokens(i) == alone(prompt(7), 3, group)
    assert room.backend.groups == [ADAPTER, OTHER]
    assert all(a != b for a, b in pairwise([(), *room.backend.groups]))


def test_what_was_computed_with_other_adapters_is_not_shared() -> None:
    room = Room(n_slots=2)
    room.submit(prompt(7, 60), 3)
    room.run()
    room.submit(prompt(7, 60), 3, ADAPTER)
    room.run()
    assert room.end(2).usage.cached_tokens == 0


def test_requests_with_other_adapters_are_not_overtaken_for_ever() -> None:
    room = Room(n_slots=2)
    room.submit(prompt(0), 4)
    room.step()
    waiting = room.submit(prompt(1), 4, ADAPTER)
    for i in range(3 * PATIENCE):
        room.submit(prompt(i + 2), 4)
        room.step()
        room.step()
    room.run()
    assert PATIENCE <= room.order().index(waiting) <= PATIENCE + 2


def test_adapters_that_cannot_be_attached_fail_their_request_alone() -> None:
    room = Room(n_slots=2)
    room.submit(prompt(0), 3)
    refused = room.submit(prompt(1), 3, room.backend.refused)
    room.submit(prompt(2), 3, ADAPTER)
    room.run()
    end = room.end(refused)
    assert isinstance(end, Failed)
    assert end.message == "It does not fit."
    assert room.tokens(3) == alone(prompt(2), 3, ADAPTER)


def test_a_request_is_cancelled_in_the_queue_and_in_a_slot() -> None:
    room = Room(n_slots=1)
    for i in range(3):
        room.submit(prompt(i), 6)
    for _ in range(3):
        room.step()
    room.scheduler.cancel(1)
    room.scheduler.cancel(2)
    room.run()
    assert [room.end(i).reason for i in (1, 2, 3)] == ["cancelled", "cancelled", "length"]
    assert room.tokens(1) == alone(prompt(0), 3)
    assert room.tokens(2) == []
    assert not room.scheduler._cancelled
    assert not room.scheduler._known


def test_a_cancel_within_a_batch_interrupts_it_and_others_lose_nothing() -> None:
    room = Room(n_slots=2)
    room.submit(prompt(0), 6)
    room.submit(prompt(1), 6)
    room.step()
    real = room.backend.decode

    def cancelled_meanwhile(parts):  # type: ignore[no-untyped-def]
        room.scheduler.cancel(1)
        assert room.backend.interrupted
        real(parts)  # the micro-batch was done, the next one was not
        return "aborted"

    room.backend.decode = cancelled_meanwhile  # type: ignore[method-assign]
    assert [type(e) for e in room.step()] == [Finished]
    room.backend.decode = real  # type: ignore[method-assign]
    room.run()
    assert room.end(1).reason == "cancelled"
    assert room.tokens(2) == alone(prompt(1), 6)


def test_a_request_that_takes_too_long_ends_with_what_it_has() -> None:
    room = Room(n_slots=1)
    room.submit(prompt(0), 50, timeout=10.0)
    room.submit(prompt(1), 50, timeout=5.0)
    for _ in range(4):
        room.step()
    room.now = 5.0
    room.step()
    assert room.end(2).reason == "deadline"
    room.now = 10.0
    room.run()
    assert room.end(1).reason == "deadline"
    assert room.tokens(1) == alone(prompt(0), 5)


@pytest.mark.parametrize("status", ["full", "failed"])
def test_a_request_that_cannot_be_computed_fails_alone(status: str) -> None:
    room = Room(n_slots=3)
    room.backend.statuses[7777] = status  # type: ignore[assignment]
    room.submit(prompt(0), 6)
    room.step()
    bad = room.submit([*prompt(1), 7777], 6)
    room.submit(prompt(2), 6)
    room.run()
    assert isinstance(room.end(bad), Failed)
    assert "decode" in room.end(bad).message
    assert room.tokens(1) == alone(prompt(0), 6)
    assert room.tokens(3) == alone(prompt(2), 6)


def test_after_an_error_in_the_backend_the_scheduler_goes_on() -> None:
    room = Room(n_slots=2)
    room.submit(prompt(0), 6)
    real = room.backend.decode

    def broken(parts):  # type: ignore[no-untyped-def]
        raise RuntimeError("a bug")

    room.backend.decode = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a bug"):
        room.step()
    room.backend.decode = real  # type: ignore[method-assign]
    room.submit(prompt(1), 6)
    room.run()
    assert room.tokens(2) == alone(prompt(1), 6)
    assert room.samplers[0].closed == 1


def test_a_token_that_cannot_be_chosen_fails_one_request() -> None:
    room = Room(n_slots=2)
    room.submit(prompt(0), 3)
    room.submit(prompt(1), 3)
    real = room.backend.choose

    def choose(sampler: object, row: int) -> int:
        if sampler is room.samplers[0]:
            raise ValueError("no token is left")
        return real(sampler, row)

    room.backend.choose = choose  # type: ignore[method-assign]
    room.run()
    assert "no token is left" in room.end(1).message
    assert room.tokens(2) == alone(prompt(1), 3)


def test_an_answer_ends_where_its_slot_does() -> None:
    room = Room(n_slots=2, n_ctx=30)
    room.submit(prompt(0, 20), 100)
    room.submit(prompt(1, 29), 100)
    room.run()
    assert room.tokens(1) == alone(prompt(0, 20), 11)
    assert room.tokens(2) == alone(prompt(1, 29), 2)


def test_common_prefixes_of_random_lists() -> None:
    random_ = random.Random(0)
    for _ in range(300):
        a = [random_.randrange(3) for _ in range(random_.randrange(12))]
        b = a[: random_.randrange(12)] + [random_.randrange(3) for _ in range(random_.randrange(6))]
        limit = random_.randrange(14)
        slow = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        assert common_prefix(a, b, limit) == min(slow, limit)
