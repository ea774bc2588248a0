"""Many requests at once on real models: what each gets alone, it gets in company."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from localllm.engine.backend import Part
from localllm.engine.base import Failed, Finished, Request, TextDelta, stream, stream_many
from localllm.engine.llama import LlamaEngine
from localllm.types import Message, Sampling
from localllm.weights.gguf import read_header
from tests.engine.helpers import write_adapter

SENTENCES = (
    "The harbour was built in 1901 and rebuilt after the storm of 1953.",
    "Ada wrote the first program for a machine that was never finished.",
    "Rain fell for three days, and the river rose over the old bridge.",
    "The committee met on Monday to decide what the new school should cost.",
    "Nobody knows who painted the portrait that hangs in the town hall.",
    "A model with more parameters needs more memory and more time.",
)
INSTRUCTION = "Summarize the following text in one sentence. Name who did what, when and where. " * 4


@pytest.fixture(scope="module")
def company(guide_path: Path) -> Iterator[LlamaEngine]:
    engine = LlamaEngine.open(guide_path, n_ctx=512, n_threads=1, n_slots=4)
    yield engine
    engine.close()


def requests(engine: LlamaEngine, texts: Sequence[str], max_tokens: int = 24) -> list[Request]:
    prompts = [engine.encode_chat([Message("user", text)]) for text in texts]
    return [Request(tuple(prompt), Sampling(max_tokens=max_tokens)) for prompt in prompts]


def answers(engine: LlamaEngine, wanted: Sequence[Request]) -> tuple[list[list[int]], list[Finished]]:
    tokens: list[list[int]] = [[] for _ in wanted]
    ends: dict[int, Finished] = {}
    for number, event in stream_many(engine, wanted):
        if isinstance(event, TextDelta):
            tokens[number] += event.tokens
        elif isinstance(event, Finished):
            ends[number] = event
    return tokens, [ends[i] for i in range(len(wanted))]


def by_itself(engine: LlamaEngine, request: Request) -> list[int]:
    return [t for e in stream(engine, request) if isinstance(e, TextDelta) for t in e.tokens]


def alike(together: Sequence[list[int]], alone: Sequence[list[int]]) -> bool:
    """All the same but at most one in six, which may differ after its first three tokens: company changes late digits,
    and with them which of two tokens that are as likely comes."""
    others = [(a, b) for a, b in zip(together, alone, strict=True) if a != b]
    return len(others) <= max(1, len(alone) // 6) and all(a[:3] == b[:3] for a, b in others)


def test_greedy_answers_are_the_same_alone_and_in_company(guide: LlamaEngine, company: LlamaEngine) -> None:
    wanted = requests(guide, [f"{a} {b}" for a in SENTENCES for b in SENTENCES[:2]])
    together, _ = answers(company, wanted)
    assert together == [by_itself(guide, request) for request in wanted]


def test_a_shared_instruction_is_read_once_and_changes_nothing(guide: LlamaEngine, company: LlamaEngine) -> None:
    company._scheduler.forget()
    wanted = requests(guide, [INSTRUCTION + text for text in SENTENCES])
    together, ends = answers(company, wanted)
    shared = [end.usage.cached_tokens for end in ends]
    assert shared[0] == 0
    assert min(shared[1:]) > len(guide.tokenize(INSTRUCTION)) - 2
    for request, tokens in zip(wanted, together, strict=True):
        guide._scheduler.forget()
        assert tokens == by_itself(guide, request)


def test_requests_with_adapters_are_answered_as_if_those_were_attached(
    guide: LlamaEngine, company: LlamaEngine, guide_path: Path, tmp_path: Path
) -> None:
    tensors = read_header(guide_path).tensors
    shapes = {name: t.shape for name, t in tensors.items() if name.endswith("attn_q.weight") or "ffn_down" in name}
    adapter = write_adapter(tmp_path / "a.gguf", shapes)
    plain = requests(guide, SENTENCES[:3], 12)
    adapted = [Request(r.prompt, r.sampling, ((adapter, 1.0),)) for r in plain]
    half = [Request(r.prompt, r.sampling, ((adapter, 0.5),)) for r in plain]
    mixed = [request for row in zip(plain, adapted, half, strict=True) for request in row]
    together, _ = answers(company, mixed)
    alone: list[list[int]] = []
    for attached in ([], [(adapter, 1.0)], [(adapter, 0.5)]):
        guide.set_adapters(attached)
        alone += [by_itself(guide, request) for request in plain]
    guide.set_adapters([])
    assert alike([*together[0::3], *together[1::3], *together[2::3]], alone)
    assert together[0::3] != together[1::3]


def test_settings_of_one_request_do_not_reach_another(guide: LlamaEngine, company: LlamaEngine) -> None:
    prompt = tuple(guide.encode_chat([Message("user", SENTENCES[0])]))
    wanted = [
        Request(prompt, sampling)
        for sampling in (
            Sampling(max_tokens=12),
            Sampling(max_tokens=12, grammar='root ::= "yes" | "no"'),
            Sampling(max_tokens=12, temperature=1.5, seed=3),
            Sampling(max_tokens=5, repeat_penalty=1.3),
            Sampling(max_tokens=12, logit_bias=((5, 100.0),)),
        )
    ]
    together, ends = answers(company, wanted)
    assert guide.detokenize(together[1]) in ("yes", "no")
    assert together[4] == [5] * 12
    assert len(together[3]) == 5
    assert alike(together, [by_itself(guide, request) for request in wanted])
    assert all(end.reason in ("stop", "length") for end in ends)


def test_a_request_that_does_not_fit_fails_and_the_others_go_on(company: LlamaEngine) -> None:
    wanted = requests(company, SENTENCES[:3], 4)
    wanted.insert(1, Request((5,) * 600))
    ends = {n: e for n, e in stream_many(company, wanted) if isinstance(e, Finished | Failed)}
    assert [type(ends[i]) for i in range(4)] == [Finished, Failed, Finished, Finished]
    assert "needs 601 tokens but the context holds 512" in ends[1].message


def test_cancel_stops_a_whole_batch(company: LlamaEngine) -> None:
    cancel = threading.Event()
    reasons = []
    for _, event in stream_many(company, iter(requests(company, SENTENCES * 4, 200)), cancel):
        if isinstance(event, TextDelta):
            cancel.set()
        elif isinstance(event, Finished):
            reasons.append(event.reason)
    assert "cancelled" in reasons
    assert len(reasons) <= 8
    assert company.step() == []


def test_an_interrupted_batch_is_not_computed_to_its_end(guide: LlamaEngine) -> None:
    context, tokens = guide._context, guide.tokenize(INSTRUCTION * 4)[:256]
    assert context is not None
    guide._scheduler.forget()
    context.interrupt(True)
    assert context.decode([Part(0, 0, tokens, 1)]) == "aborted"
    context.interrupt(False)
    assert context.decode([Part(0, context.length(0), tokens[context.length(0) :], 1)]) == "done"
    guide._scheduler.forget()


def test_a_time_limit_ends_an_answer(guide: LlamaEngine) -> None:
    prompt = tuple(guide.encode_chat([Message("user", SENTENCES[0])]))
    (end,) = (e for e in stream(guide, Request(prompt, timeout=0.0)) if isinstance(e, Finished))
    assert end.reason == "deadline"
    assert end.usage.output_tokens == 0
