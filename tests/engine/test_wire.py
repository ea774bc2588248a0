"""Messages between an engine's child process and its parent: every type survives the trip, and nothing else arrives."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

from localllm.engine import wire
from localllm.engine.base import Failed, Finished, Prefilled, Request, StepEvent, TextDelta
from localllm.engine.worker_messages import Answer, Call, Cancel, FromChild, Happened, Refusal, ToChild, Tokenize
from localllm.errors import ContextOverflowError, DataError, EngineError, GrammarError, UsageError
from localllm.types import Sampling

TEXTS = ["", "plain", "naïve 日本語 🙂", '"quotes" \\ \n\r\t\0', "\x1b]52;c;\x07", "\ud800 lone", "\u2028", "{" * 50]
NUMBERS = {int: [0, -1, 7, 2**53 + 1, 10**30], float: [0.0, -1.5, 1e-300, float("inf"), float("-inf"), 3]}


def some(kind: Any, choose: random.Random) -> Any:
    """A random value of an annotated type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, UnionType):
        return some(choose.choice(arguments), choose)
    if origin is Literal:
        return choose.choice(arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return tuple(some(argument, choose) for argument in arguments)
    if origin is tuple:
        return tuple(some(arguments[0], choose) for _ in range(choose.randrange(4)))
    if origin is dict:
        return {some(arguments[0], choose): some(arguments[1], choose) for _ in range(choose.randrange(4))}
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{field.name: some(hints[field.name], choose) for field in fields(kind)})
    if kind is Any:
        return choose.choice([None, True, 3, 0.5, "text"])
    simple = {NoneType: [None], bool: [True, False], str: TEXTS, Path: [Path("/a b/ü"), Path("x\udcff")], **NUMBERS}
    return choose.choice(simple[kind])


@pytest.mark.parametrize(
    "kind, union",
    [(kind, union) for union in (ToChild, FromChild, StepEvent) for kind in get_args(union)],
    ids=lambda kind: getattr(kind, "__name__", ""),
)
def test_every_message_survives_the_trip(kind: Any, union: Any) -> None:
    choose = random.Random(0)
    for _ in range(100):
        message = some(kind, choose)
        line = wire.encode(message)
        assert line.count(b"\n") == 1
        assert line.isascii()
        assert wire.decode(line, union) == message


def test_types_of_their_own_need_nothing_here() -> None:
    @dataclass(frozen=True)
    class Inner:
        value: float

    globals()["Inner"] = Inner

    @dataclass(frozen=True)
    class New:
        inner: tuple[Inner, ...] | None
        by_name: dict[str, list[int]]
        several: Sequence[str] = ()

    message = New((Inner(1.0), Inner(2)), {"a": [1, 2]}, ("x",))
    assert wire.decode(wire.encode(message), New) == message


def test_the_integers_of_numpy_are_integers() -> None:
    request = Request((np.int32(5), np.int64(6)))  # type: ignore[arg-type]
    assert wire.decode(wire.encode(request), Request) == Request((5, 6))


@pytest.mark.parametrize(
    "line",
    [
        b"llama_model_loader: loaded meta data",
        b"\xff\xfe\x00",
        b"",
        b"null",
        b"[]",
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"class":"Sampling"}',
        b'{"class":"Path"}',
        b'{"request_id":1,"done":1,"total":1}',
        b'{"class":"Prefilled","request_id":1,"done":1}',
        b'{"class":"Prefilled","request_id":1,"done":1,"total":1,"more":1}',
        b'{"class":"Prefilled","request_id":"1","done":1,"total":1}',
        b'{"class":"Prefilled","request_id":true,"done":1,"total":1}',
        b'{"class":"Prefilled","request_id":1.0,"done":1,"total":1}',
        b'{"class":"TextDelta","request_id":1,"text":"a","tokens":["5"]}',
        b'{"class":"TextDelta","request_id":1,"text":"a","tokens":"5"}',
        b'{"class":"Finished","request_id":1,"reason":"tired","usage":null}',
    ],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        wire.decode(line, StepEvent)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_lines_are_messages_or_refused(seed: int) -> None:
    choose = random.Random(seed)
    events = (Prefilled(1, 2, 3), TextDelta(1, "text", (5, 6)), some(Finished, choose), Failed(1, "a", "b"))
    line = wire.encode(Happened(events))
    for _ in range(500):
        damaged = bytearray(line)
        for _ in range(choose.randrange(1, 4)):
            damaged[choose.randrange(len(damaged))] = choose.randrange(256)
        try:
            message = wire.decode(bytes(damaged[: choose.choice([len(line), choose.randrange(len(line))])]), FromChild)
        except ValueError:
            continue
        assert isinstance(message, Answer | Refusal | Happened)


def test_messages_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_BYTES", 1000)
    with pytest.raises(UsageError, match=r"too long: \d+ bytes"):
        wire.encode(Call(1, Tokenize("x" * 1000, True, True)))
    with pytest.raises(ValueError):
        wire.decode(b" " * 1000 + wire.encode(Cancel(1)), ToChild)


@pytest.mark.parametrize(
    "error",
    [
        ContextOverflowError(10, 5),
        GrammarError("message", "hint"),
        DataError("broken", path=Path("/data.jsonl"), line=3),
        EngineError("no hint"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_keep_their_class_and_what_they_say(error: EngineError) -> None:
    again = wire.decode(wire.encode(Refusal.of(3, error)), FromChild).error()
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code
    assert {k: str(v) for k, v in vars(again).items()} == {k: str(v) for k, v in vars(error).items()}


def test_only_our_errors_come_back() -> None:
    for kind in ("SystemExit", "Path", "annotations", "no such thing"):
        assert type(Refusal(1, kind, "m", "h", {}).error()) is EngineError


def test_lines_can_be_read_by_other_programs() -> None:
    line = json.loads(wire.encode(Request((1,), Sampling(max_tokens=3))))
    assert line["class"] == "Request"
    assert line["sampling"]["max_tokens"] == 3
