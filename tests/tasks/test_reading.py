"""An answer from the handbook says whole sentences of what was read, whatever the model says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from localllm.engine.base import Event, Finished, Prefilled, TextDelta
from localllm.handbook.entries import by_id
from localllm.tasks.looking_up import LookedUp, look_up, nothing_found
from localllm.tasks.reading import CHOSEN, DECLINED, NOTHING, SURE, Sourced, answer, turns_for
from localllm.types import FinishReason, Message, Usage

LORA = by_id()["lora"]
FIRST_ONE, SECOND = LORA.readable[:2]
FOUND = LookedUp("What is LoRA?", (LORA,), certainty=SURE, held=True)
SOURCE = "from the handbook: LoRA (lora)"


class Model:
    """Says a text in pieces of some characters, until its event is set."""

    def __init__(self, text: str, step: int = 3, reason: FinishReason = "stop") -> None:
        self.text, self.step, self.reason = text, step, reason
        self.pieces = 0

    def __call__(self, cancel: threading.Event) -> Iterator[Event]:
        yield Prefilled(1, 10, 10)
        for at in range(0, len(self.text), self.step):
            if cancel.is_set():
                yield Finished(1, "cancelled", Usage(10, 0, self.pieces))
                return
            self.pieces += 1
            yield TextDelta(1, self.text[at : at + self.step], (0,))
        yield Finished(1, self.reason, Usage(10, 0, self.pieces))


def told(found: LookedUp, model: Model, said: str = "", cancel: threading.Event | None = None) -> tuple[str, str, str]:
    """Text, source and reason."""
    events = list(answer(found, model, cancel or threading.Event(), said))
    assert isinstance(events[-1], Finished)
    assert isinstance(events[-2], Sourced)
    return "".join(e.text for e in events if isinstance(e, TextDelta)), events[-2].text, events[-1].reason


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_sentences_of_the_entry_pass_whole_however_they_come(step: int) -> None:
    assert told(FOUND, Model(FIRST_ONE, step)) == (FIRST_ONE, SOURCE, "stop")
    assert told(FOUND, Model(f"{SECOND}\n{FIRST_ONE}\n", step)) == (f"{SECOND} {FIRST_ONE}", SOURCE, "stop")


@pytest.mark.parametrize("wrong", ["The text does not say.", "", "LoRA is a radio standard.", FIRST_ONE[:-9], "LoRA."])
def test_where_nothing_of_it_stands_in_the_entry_its_first_sentence_is_said(wrong: str) -> None:
    assert told(FOUND, Model(wrong)) == (FIRST_ONE, f"{SOURCE} · {CHOSEN}", "stop")
    unsure = replace(FOUND, certainty=SURE - 0.01)
    assert told(unsure, Model(wrong)) == (nothing_found(), f"looked up the handbook: LoRA (lora) · {NOTHING}", "stop")


@pytest.mark.parametrize("more", [" It is also a radio standard, " * 90, f" {FIRST_ONE}" * 20])
def test_what_wanders_off_or_repeats_ends_there_and_the_model_is_stopped(more: str) -> None:
    model = Model(FIRST_ONE + more)
    assert told(FOUND, model) == (FIRST_ONE, SOURCE, "stop")
    assert model.pieces < (len(FIRST_ONE) + 60) / 3


def test_a_sentence_that_begins_like_a_longer_one_is_told_from_it() -> None:
    entry = replace(LORA, body="Use it. Use it. again. Use it. Always.")
    short = replace(LORA, body="Stop it. Stop itself.")
    assert told(replace(FOUND, entries=(short,)), Model("Stop itself.", 1))[0] == "Stop itself."
    assert told(replace(FOUND, entries=(short,)), Model("Stop it.", 1))[0] == "Stop it."
    assert told(replace(FOUND, entries=(entry,)), Model("Use it.", 1))[0] == "Use it."


@pytest.mark.parametrize("reason", ["length", "cancelled"])
def test_what_is_broken_off_stays_and_can_be_gone_on_with(reason: FinishReason) -> None:
    half, rest = FIRST_ONE[:30], FIRST_ONE[30:]
    assert told(FOUND, Model(half, reason=reason)) == (half, SOURCE, reason)
    assert told(FOUND, Model(f"{rest} {SECOND}"), said=half) == (f"{rest} {SECOND}", SOURCE, "stop")
    assert told(FOUND, Model(f" {SECOND}"), said=FIRST_ONE) == (f" {SECOND}", SOURCE, "stop")
    assert told(FOUND, Model(" and so on"), said=FIRST_ONE) == ("", SOURCE, "stop")


def test_the_person_stops_it() -> None:
    cancel = threading.Event()
    cancel.set()
    assert told(FOUND, Model(FIRST_ONE), cancel=cancel) == ("", SOURCE, "cancelled")


def test_other_models_speak_freely_and_what_is_not_there_is_said_without_asking() -> None:
    assert told(replace(FOUND, held=False), Model("In my own words.")) == ("In my own words.", SOURCE, "stop")
    silent = Model("never")
    assert told(LookedUp("Who?", instead="Nothing."), silent) == ("Nothing.", DECLINED, "stop")
    assert silent.pieces == 0


def test_a_model_that_only_reads_is_sent_nothing_else() -> None:
    turns = [Message("user", "Hello"), Message("assistant", "Hi"), Message("user", "What is LoRA?")]
    assert turns_for(FOUND, turns) == [Message("user", FOUND.prompt)]
    assert turns_for(replace(FOUND, held=False), turns) == [*turns[:2], Message("user", FOUND.prompt)]


def test_a_question_after_a_text_of_the_persons_own_is_about_that_text() -> None:
    text = [Message("user", "Mira planted three trees.\nThey bear fruit."), Message("assistant", "Three trees.")]
    assert look_up("Who planted them?", text) is None
    assert look_up("How long does it take?", text) is None
    assert look_up("How long does it take?") is not None
    lora = look_up("What is LoRA?", text)
    assert lora is not None
    assert lora.entries == (LORA,)
