"""Each setting does what its line in types.Sampling says."""

from __future__ import annotations

import json

import pytest

from localllm.engine.llama import LlamaEngine
from localllm.errors import GrammarError, UsageError
from localllm.types import Sampling
from tests.engine.helpers import answer, never_ending

PROMPT = "The town council met on Monday to discuss the new bridge."
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "count": {"type": "integer"}},
    "required": ["name", "count"],
}


def test_a_seed_repeats_and_another_differs(guide: LlamaEngine) -> None:
    hot = {"temperature": 1.5, "max_tokens": 24}
    texts = []
    for seed in (1, 1, 2, 3):
        guide.logits([5])  # leaves the context empty: what is held over from before changes the order of sums
        texts.append(answer(guide, PROMPT, Sampling(seed=seed, **hot))[0])
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999999}])
def test_filters_narrowed_to_one_token_are_greedy(guide: LlamaEngine, narrow: dict[str, float]) -> None:
    greedy = answer(guide, PROMPT, Sampling(max_tokens=16))[0]
    assert answer(guide, PROMPT, Sampling(temperature=2.0, max_tokens=16, **narrow))[0] == greedy  # type: ignore[arg-type]


def test_a_barred_token_does_not_occur(guide: LlamaEngine) -> None:
    from localllm.engine.base import Request, TextDelta, stream

    prompt, endless = tuple(guide.tokenize(PROMPT)), never_ending(guide)
    first = next(
        e.tokens[0]
        for e in stream(guide, Request(prompt, Sampling(max_tokens=1, logit_bias=endless)))
        if isinstance(e, TextDelta) and e.tokens
    )
    barred = Sampling(max_tokens=16, logit_bias=(*endless, (first, float("-inf"))))
    tokens = [t for e in stream(guide, Request(prompt, barred)) if isinstance(e, TextDelta) for t in e.tokens]
    assert first not in tokens


@pytest.mark.parametrize(
    "penalty", [{"repeat_penalty": 50.0}, {"presence_penalty": 100.0}, {"frequency_penalty": 100.0}]
)
def test_penalties_keep_tokens_from_coming_again(guide: LlamaEngine, penalty: dict[str, float]) -> None:
    from localllm.engine.base import Request, TextDelta, stream

    sampling = Sampling(max_tokens=30, logit_bias=never_ending(guide), **penalty)  # type: ignore[arg-type]
    prompt = tuple(guide.tokenize("a a a a"))
    tokens = [t for e in stream(guide, Request(prompt, sampling)) if isinstance(e, TextDelta) for t in e.tokens]
    assert len(tokens) == len(set(tokens)) == 30


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_matches_its_grammar(guide: LlamaEngine, temperature: float) -> None:
    grammar = 'root ::= ("yes" | "no") ", " [0-9]{3}'
    text, finished = answer(guide, PROMPT, Sampling(grammar=grammar, temperature=temperature, max_tokens=40))
    assert text[:2] in ("ye", "no")
    assert text.split(", ")[1].isdigit()
    assert finished.reason == "stop"


def test_no_control_character_can_stand_in_a_string_of_json(guide: LlamaEngine) -> None:
    schema = json.dumps({"type": "string", "minLength": 1})
    newline = guide.tokenize("\n")
    sampling = Sampling(json_schema=schema, max_tokens=24, logit_bias=tuple((token, 50.0) for token in newline))
    text, _ = answer(guide, PROMPT, sampling)
    assert "\n" not in text.strip()


def test_an_answer_matches_its_schema_whatever_the_temperature(guide: LlamaEngine) -> None:
    for seed in range(5):
        sampling = Sampling(json_schema=json.dumps(SCHEMA), temperature=1.8, seed=seed, max_tokens=200)
        text, finished = answer(guide, PROMPT, sampling)
        if finished.reason == "stop":
            value = json.loads(text)
            assert isinstance(value["name"], str)
            assert isinstance(value["count"], int)


@pytest.mark.parametrize(
    "settings, match",
    [({"grammar": "root = broken"}, "does not compile"), ({"json_schema": "{"}, "not valid JSON")],
)
def test_what_does_not_compile_is_said_before_anything_runs(
    guide: LlamaEngine, settings: dict[str, str], match: str
) -> None:
    with pytest.raises(GrammarError, match=match):
        answer(guide, PROMPT, Sampling(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"min_p": 1.0},
        {"repeat_penalty": 0.0},
        {"max_tokens": 0},
        {"temperature": float("nan")},
        {"grammar": 'root ::= "a"', "json_schema": "{}"},
    ],
)
def test_settings_without_a_meaning_are_refused(guide: LlamaEngine, settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        answer(guide, PROMPT, Sampling(**settings))  # type: ignore[arg-type]


def test_a_stop_sequence_is_not_shown(guide: LlamaEngine) -> None:
    grammar = 'root ::= "one two three four"'
    text, finished = answer(guide, PROMPT, Sampling(grammar=grammar, max_tokens=30, stop=("never", "three")))
    assert text == "one two "
    assert finished.reason == "stop"
