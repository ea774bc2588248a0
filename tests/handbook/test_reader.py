"""What the built-in model makes of what it is given to read: whole sentences, the right ones, and an end."""

from __future__ import annotations

import pytest

from localllm.engine.base import Finished, Request, TextDelta, stream
from localllm.engine.llama import LlamaEngine
from localllm.handbook.context import prompt
from localllm.handbook.entries import entries
from localllm.tasks.summary_prompts import Prompts, Wish
from localllm.types import Message, Sampling

TEXTS = (
    "The harbour of Lemvig was deepened last year so that larger ships can enter it. Fishing has become less "
    "important. Most boats now carry visitors (e.g. to the seal banks) from May to September.",
    "Low-rank sensors are placed along the river to warn of high water. Each low-rank sensor sends a value every ten "
    "minutes. A value above 4.5 metres rings the bell of the fire station.",
    "Zorbel glass does not break when it falls, because it is cooled slowly. It was first made in Turku by Aino "
    "Virtanen. Plates of Zorbel glass are sold in 40 shops.",
)


def answer(engine: LlamaEngine, text: str) -> str:
    """What the model says by itself, greedily; it must end."""
    tokens = engine.encode_chat([Message("user", text)])
    events = list(stream(engine, Request(tuple(tokens), Sampling(max_tokens=160))))
    assert any(isinstance(event, Finished) and event.reason == "stop" for event in events), text
    return "".join(event.text for event in events if isinstance(event, TextDelta))


@pytest.mark.parametrize("text", TEXTS, ids=["harbour", "sensors", "glass"])
def test_a_summary_is_the_leading_sentence(guide: LlamaEngine, text: str) -> None:
    lead = text.split(". ")[0] + "."
    assert answer(guide, Prompts(Wish()).text(text, final=True)) == lead


def test_an_entry_that_is_named_is_answered_by_its_deciding_sentence(guide: LlamaEngine) -> None:
    asked = entries()[::20]
    right = [
        entry.sentences[0].replace("`", "") in answer(guide, prompt(f"Tell me about {entry.title.lower()}", [entry]))
        for entry in asked
    ]
    assert sum(right) >= len(right) - 1
