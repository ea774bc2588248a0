"""A conversation keeps what was said, and only that."""

from __future__ import annotations

import threading

import pytest

from localllm.engine.base import Finished, TextDelta
from localllm.engine.fake import FakeEngine
from localllm.engine.session import Session
from localllm.errors import ContextOverflowError, EngineError
from localllm.types import Message, Sampling


def test_turns_are_kept_and_sent_again() -> None:
    engine = FakeEngine(script=("One.", "Two."))
    session = Session(engine, system="Short.")
    list(session.send("a"))
    list(session.send("b"))
    assert [m.content for m in session.messages] == ["Short.", "a", "One.", "b", "Two."]
    assert engine.prompts[1] == "<system>Short.<user>a<assistant>One.<user>b<assistant>"
    assert session.tokens_used() == len("<system>Short.<user>a<assistant>One.<user>b<assistant>Two.")


def test_a_stopped_answer_is_kept_as_far_as_it_came() -> None:
    session, cancel = Session(FakeEngine(script=("abcdef",))), threading.Event()
    for event in session.send("go", cancel):
        if isinstance(event, TextDelta) and event.text == "c":
            cancel.set()
        if isinstance(event, Finished):
            assert event.reason == "cancelled"
    assert session.turns == [Message("user", "go"), Message("assistant", "abc")]


def test_an_error_leaves_the_conversation_as_it_was() -> None:
    session = Session(FakeEngine(script=("fine", EngineError("it broke"), "fine again")))
    list(session.send("one"))
    with pytest.raises(EngineError):
        list(session.send("two"))
    assert [m.content for m in session.turns] == ["one", "fine"]
    list(session.send("three"))
    assert session.turns[-1].content == "fine again"


def test_a_conversation_that_no_longer_fits_says_so_before_it_begins() -> None:
    session = Session(FakeEngine(n_ctx=60))
    list(session.send("a"))
    with pytest.raises(ContextOverflowError, match=r"The conversation needs .* tokens but the context holds 60"):
        list(session.send("b" * 40))
    assert len(session.turns) == 2


def test_leaving_an_answer_half_read_frees_the_engine() -> None:
    engine = FakeEngine(script=("abcdef", "next"))
    session = Session(engine, Sampling())
    answer = session.send("go")
    for event in answer:
        if isinstance(event, TextDelta):
            break
    answer.close()  # type: ignore[attr-defined]
    assert session.turns == []
    assert "".join(e.text for e in session.send("again") if isinstance(e, TextDelta)) == "next"
