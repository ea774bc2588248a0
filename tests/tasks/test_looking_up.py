"""Which messages are looked up in the handbook, and what the model is then asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from localllm.engine.llama import LlamaEngine
from localllm.handbook.entries import by_id
from localllm.tasks.looking_up import LookedUp, fitted, larger_model, look_up, nothing_found, wanted
from localllm.types import ModelRef

GUIDE = ModelRef("guide", Path("guide.gguf"), "built-in")
OTHER = ModelRef("other", Path("other.gguf"), "path")


@pytest.mark.parametrize(
    "asked, model, adapter, expected",
    [
        (None, GUIDE, False, True),
        (None, GUIDE, True, False),
        (None, OTHER, False, False),
        (True, OTHER, False, True),
        (True, GUIDE, True, True),
        (False, GUIDE, False, False),
    ],
)
def test_the_built_in_model_looks_things_up_and_others_when_asked(
    asked: bool | None, model: ModelRef, adapter: bool, expected: bool
) -> None:
    assert wanted(asked, model, adapter=adapter) is expected


def test_a_question_is_given_what_the_model_should_read() -> None:
    found = look_up("What is LoRA?")
    assert found
    assert [entry.id for entry in found.entries] == ["lora"]
    assert found.prompt == f"{by_id()['lora'].plain}\n\nWhat is LoRA?"
    assert "`" not in found.prompt
    assert found.source == "from the handbook: LoRA (lora)"
    assert not found.instead


@pytest.mark.parametrize(
    "message",
    [
        "Hello",
        "hi there!",
        "Thank you so much",
        "Who are you?",
        "What can you do?",
        "Good morning, guide.",
        "Mira planted three apple trees behind the school. Who planted trees?",
        "Summarize this: the town council decided on Monday to rebuild the bridge.",
        "The council met.\n\nWhat did it decide about the old bridge?",
        "word " * 60,
    ],
)
def test_greetings_and_texts_of_ones_own_go_to_the_model_as_they_are(message: str) -> None:
    assert look_up(message) is None


def test_where_nothing_fits_it_is_said_with_what_to_do_instead() -> None:
    found = look_up("What is the capital of Mongolia?")
    assert found
    assert found.entries == ()
    assert found.instead.startswith("The handbook has nothing on that")
    assert "localllm pull" in found.instead


def test_the_largest_model_of_the_catalog_that_fits_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {
        "guide": {"file": "guide.gguf", "parameters": 6_000_000},
        "small": {"gguf": {"repo": "a/small"}, "parameters": 600_000_000},
        "middle": {"gguf": {"repo": "a/middle"}, "parameters": 4_000_000_000},
        "large": {"gguf": {"repo": "a/large"}, "parameters": 30_000_000_000},
    }
    monkeypatch.setattr("localllm.tasks.looking_up.catalog.cards", lambda: cards)
    for gigabytes, name in ((2.5, "small"), (8, "middle"), (64, "large"), (1, "")):
        monkeypatch.setattr("localllm.tasks.looking_up.available_memory", lambda gb=gigabytes: int(gb * 1e9))
        assert larger_model() == name
    assert nothing_found().endswith("get a larger model: `localllm pull` lists some.")
    monkeypatch.setattr("localllm.tasks.looking_up.available_memory", lambda: int(8e9))
    assert "`localllm pull middle`, then ask it with `--model middle`" in nothing_found()


def test_entries_that_do_not_fit_the_context_are_left_out(guide_path: Path) -> None:
    both = LookedUp("What is LoRA?", (by_id()["lora"], by_id()["qlora"]))
    small = LlamaEngine.open(guide_path, n_ctx=384, n_threads=1)
    large = LlamaEngine.open(guide_path, n_ctx=1024, n_threads=1)
    try:
        assert [entry.id for entry in fitted(small, both).entries] == ["lora"]
        assert fitted(large, both) == both
    finally:
        small.close()
        large.close()
