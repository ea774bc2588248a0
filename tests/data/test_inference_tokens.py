"""Training sees the tokens that chat sends: both are rendered, through real templates and a real vocabulary."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from localllm.data.examples import Encoder, TrainOn
from localllm.data.formats import read_row
from localllm.engine.llama import LlamaEngine
from localllm.engine.template import NAMED, ChatTemplate
from localllm.types import Conversation, Example, Message

HABITS = {
    "drops earlier reasoning": (
        "{% for m in messages %}{% set c = m['content'] %}"
        "{% if m['role'] == 'assistant' and not loop.last %}{% set c = c.split('.')[-1] %}{% endif %}"
        "<|im_start|>{{ m['role'] }}\n{{ c }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    "writes an empty thought": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "trims": (
        "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] | trim }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    ),
    "ends answers only": (
        "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
        "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
    ),
}
WORDS = ("ball", "The", "Größe", "日本", "🙂", "x = 1", "\n", "  ", "don't", "1,000", "{}", "<b>", "A. B.", "end")


@pytest.fixture(scope="module")
def engine(guide_path: Path) -> Iterator[LlamaEngine]:
    opened = LlamaEngine.open(guide_path, vocab_only=True)
    yield opened
    opened.close()


def with_template(engine: LlamaEngine, source: str) -> None:
    bos, eos = (engine.vocab.text_of(token) for token in (engine.vocab.bos, engine.vocab.eos))
    engine._template_source, engine._template = source, ChatTemplate(source, bos, eos)


def conversation(rng: random.Random) -> tuple[Message, ...]:
    def text() -> str:
        return "".join(rng.choice(WORDS) + rng.choice(("", " ")) for _ in range(rng.randint(1, 12))) + rng.choice("ab.")

    turns = [t for _ in range(rng.randint(1, 4)) for t in (Message("user", text()), Message("assistant", text()))]
    return (*((Message("system", text()),) if rng.random() < 0.5 else ()), *turns)


def spans(example: Example) -> list[tuple[int, int]]:
    """(start, end) of each run of learned tokens."""
    edges = [i for i in range(1, len(example.mask)) if example.mask[i] != example.mask[i - 1]]
    edges += [len(example.mask)] * (len(edges) % 2)
    return list(zip(edges[::2], edges[1::2], strict=True))


def check(engine: LlamaEngine, messages: Sequence[Message], train_on: TrainOn = "assistant") -> int:
    """Compare what is learned with what chat sends for each answer; returns how many examples there were."""
    encoder = Encoder(engine, True, engine.vocab.eos, engine.vocab.is_end, train_on)
    examples = encoder.encode(Conversation(tuple(messages), None, 1))
    answers = [i for i, m in enumerate(messages) if m.role == "assistant"]
    if train_on == "last":
        answers = answers[-1:]
    found = [(example, start, end) for example in examples for start, end in spans(example)]
    assert len(found) == len(answers), "each answer is learned exactly once"
    for i, (example, start, end) in zip(answers, found, strict=True):
        sent = engine.encode_chat(messages[:i])  # what chat sends to have this answer written
        assert list(example.tokens[:start]) == sent
        *answer, last = example.tokens[start:end]
        assert engine.vocab.is_end(last), "the model learns to stop"
        assert not any(engine.vocab.is_end(token) for token in answer)
        written = engine.detokenize(answer).replace("<think>\n\n</think>\n\n", "")
        assert written.strip() == messages[i].content.strip()
    return len(examples)


@pytest.mark.parametrize("train_on", ["assistant", "last"])
@pytest.mark.parametrize("name", [*NAMED, *HABITS])
def test_prompts_and_answers_are_those_of_inference(engine: LlamaEngine, name: str, train_on: TrainOn) -> None:
    with_template(engine, {**NAMED, **HABITS}[name])
    rng = random.Random(name)
    for _ in range(25):
        check(engine, conversation(rng), train_on)


def test_a_stable_template_makes_one_example_and_another_one_for_each_answer(engine: LlamaEngine) -> None:
    turns = [t for i in range(3) for t in (Message("user", f"q{i}"), Message("assistant", f"So. {i}"))]
    with_template(engine, NAMED["chatml"])
    assert check(engine, turns) == 1
    with_template(engine, HABITS["drops earlier reasoning"])
    assert check(engine, turns) == 3


def test_what_the_next_question_sends_begins_with_what_was_learned(engine: LlamaEngine) -> None:
    with_template(engine, NAMED["chatml"])
    encoder = Encoder(engine, True, engine.vocab.eos, engine.vocab.is_end)
    rng = random.Random(5)
    for _ in range(25):
        messages = tuple(Message(m.role, m.content.strip() or "a") for m in conversation(rng))
        (example,) = encoder.encode(Conversation(messages, None, 1))
        following = engine.encode_chat([*messages, Message("user", "And?")])
        assert tuple(following[: len(example.tokens)]) == example.tokens


CALLS = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}"
    "{% if m['role'] == 'tool' and not messages[loop.index0 - 1]['tool_calls'] %}{{ raise_exception('?') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}<call>{{ c['function'] | tojson }}{% endfor %}END\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\nTHOUGHT{% endif %}"
)


@pytest.mark.parametrize("end", ["<|im_end|>", "<|unknown|>"])
@pytest.mark.parametrize("thought", ["", "<think>\n"])
def test_calls_are_learned_as_written_wherever_the_prompt_ends(engine: LlamaEngine, end: str, thought: str) -> None:
    with_template(engine, CALLS.replace("END", end).replace("THOUGHT", thought))
    call = {"id": "1", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "blue", "tool_call_id": "1"},
        {"role": "assistant", "content": "Blue."},
    ]
    (row,) = read_row({"messages": turns, "tools": [{"name": "look"}]}, 1)
    examples = Encoder(engine, True, engine.vocab.eos, engine.vocab.is_end).encode(row)
    found = [(e, start, end) for e in examples for start, end in spans(e)]
    assert len(found) == 2
    for i, (example, start, stop) in zip((1, 3), found, strict=True):
        assert list(example.tokens[:start]) == engine.encode_chat(row.messages[:i], tools=row.tools)
        assert engine.vocab.is_end(example.tokens[stop - 1])
        said = engine.detokenize(example.tokens[start:stop])
        assert ('<call>{"name": "look", "arguments": {"at": "sky"}}' if i == 1 else "Blue.") in said
