"""Base against adapter through llama.cpp, on small models with known adapters."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from localllm.engine.llama import LlamaEngine
from localllm.errors import AdapterError, CancelledError, DataError, UsageError
from localllm.evaluate.answers import Measure
from localllm.evaluate.exact import Answered
from localllm.evaluate.perplexity import row_loss
from localllm.evaluate.verdict import Scored
from localllm.paths import Home
from localllm.store.registry import Registry
from localllm.tasks import evaluation_rows
from localllm.tasks.evaluating import Answers, EvaluateProgress, EvaluateResult, EvaluateStarted, _samples, evaluate
from localllm.tasks.evaluation_rows import gather, given_rows, question, spread
from localllm.tasks.verify import Rows
from localllm.types import Example
from localllm.weights import peft
from localllm.weights.adapter import Adapter
from localllm.weights.gguf import read_header
from localllm.weights.lora import write_gguf

ADAPTERS = Path(__file__).parents[1] / "weights" / "adapters"
BASE, PLAIN = ADAPTERS / "llama.gguf", ADAPTERS / "llama-plain" / "adapter.gguf"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Home(tmp_path / "home"))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Rows with two labels."""
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Is {i} even? ", "completion": "odd" if i % 2 else "even"} for i in range(12)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def result_of(registry: Registry, adapter: Path, data: Path, **options: int) -> EvaluateResult:
    result = list(evaluate(registry, str(adapter), str(BASE), data, **options))[-1]
    assert isinstance(result, EvaluateResult)
    return result


def test_every_number_is_that_of_the_engine(registry: Registry, pairs: Path) -> None:
    events = list(evaluate(registry, str(PLAIN), str(BASE), pairs, samples=2))
    started, result = events[0], events[-1]
    assert isinstance(started, EvaluateStarted)
    assert (started.rows, started.available, started.questions) == (12, 12, 12)
    assert (started.kind, started.measure) == ("given", "label accuracy")
    progress = [e for e in events if isinstance(e, EvaluateProgress)]
    assert [e.done for e in progress] == list(range(1, progress[0].total + 1))
    assert progress[-1].done == progress[-1].total == 2 * (12 + 12 + 10 + 12)
    assert isinstance(result, EvaluateResult)

    rows = given_rows(BASE, pairs).examples
    engine = LlamaEngine.open(BASE, n_ctx=64)
    for loss, adapters in ((result.rows.base, []), (result.rows.adapter, [(PLAIN, 1.0)])):
        engine.set_adapters(adapters)
        found = [row_loss(engine, row) for row in rows]
        assert loss.tokens == sum(r.tokens for r in found) > 12
        assert loss.mean == pytest.approx(sum(r.nats for r in found) / loss.tokens, rel=1e-4)
    engine.close()
    assert abs(result.rows.difference) > 1e-3
    assert result.general.base.tokens > 1000
    assert len(result.general.base.rows) == 10
    assert len(result.other.base.rows) == 12
    assert [s.expected for s in result.samples] == ["even", "odd"]
    assert result.samples[0].prompt == "Is 0 even?"
    json.dumps(result.record(), allow_nan=False)


def scaled(folder: Path, factor: float) -> Path:
    """The adapter, many times as strong, or without any effect."""
    adapter, _ = peft.read(ADAPTERS / "llama-plain", read_header(BASE))
    layers = {path: (a, b * factor) for path, (a, b) in adapter.layers.items()}
    write_gguf(folder / "scaled.gguf", Adapter(adapter.rank, adapter.alpha, layers), read_header(BASE), {})
    return folder / "scaled.gguf"


def test_an_adapter_of_zeros_has_no_effect(registry: Registry, pairs: Path, tmp_path: Path) -> None:
    result = result_of(registry, scaled(tmp_path, 0.0), pairs)
    assert result.verdict.outcome == "no effect"
    assert result.rows.difference == result.general.difference == result.other.difference == 0.0
    assert all(s.base == s.adapter for s in result.samples)
    assert "Nothing forgotten" in result.verdict.words


def test_an_adapter_of_noise_is_worse_and_forgot(registry: Registry, pairs: Path, tmp_path: Path) -> None:
    result = result_of(registry, scaled(tmp_path, 400.0), pairs)
    assert result.verdict.outcome == "worse"
    assert set(result.verdict.forgot) == {"general text", "rows of other topics"}
    assert "Forgot: perplexity on general text" in result.verdict.words


def test_the_questions_are_the_last_answers(guide: LlamaEngine) -> None:
    tokens = tuple(guide.tokenize("one two three four", add_special=False))
    row = Example((*tokens, *tokens, guide.vocab.eos), (False, True) + (False,) * (len(tokens) - 2)
                  + (True,) * (len(tokens) + 1), 7)  # fmt: skip
    found = question(guide, row, 100)
    assert found is not None
    assert (found.line, found.prompt, found.expected_tokens) == (7, tokens, len(tokens))
    assert found.expected.strip() == "one two three four"
    assert question(guide, Example(tokens, (False,) + (True,) * (len(tokens) - 1)), 100) is None  # a text
    assert question(guide, row, len(row.tokens)) is None  # cut off by the context


def test_rows_come_from_all_over() -> None:
    assert spread(list(range(100)), 200, [10] * 100) == list(range(0, 100, 5))
    assert len(spread(list(range(100)), 1, [10] * 100)) == evaluation_rows.LEAST_ROWS
    assert spread([1, 2, 3], 1, [999] * 3) == [1, 2, 3]
    assert spread([], 10, []) == []


def test_samples_show_where_the_adapter_errs() -> None:
    expected = [Answered(line, "x", "y") for line in range(10)]
    adapter = [Answered(line, "x", "z" if line in (7, 9) else "x") for line in range(10)]
    answers = Answers(
        Measure("exact", ""), (Scored("exact match", (0.0,) * 10, tuple(float(a.exact) for a in adapter)),)
    )
    shown = _samples(["p"] * 10, expected, adapter, answers, 5)
    assert [s.line for s in shown] == [0, 1, 2, 7, 9]
    assert [s.adapter for s in shown] == ["x", "x", "x", "z", "z"]
    assert len(_samples(["p"] * 10, expected, adapter, answers, 1)) == 1
    assert _samples([], [], [], None, 5) == ()


def test_texts_have_no_answers_to_judge(registry: Registry, tmp_path: Path) -> None:
    data = tmp_path / "text.jsonl"
    data.write_text('{"text": "A text without questions."}\n' * 3)
    result = result_of(registry, PLAIN, data)
    assert result.answers is None
    assert result.samples == ()
    with pytest.raises(DataError, match="nothing in these rows"):
        gather(BASE, Rows("given", [Example((1,), (True,))]))


def test_mistakes_are_one_sentence(registry: Registry, pairs: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.gguf"
    shutil.copy(PLAIN, bare)
    with pytest.raises(UsageError, match="No rows were held out when bare was made"):
        list(evaluate(registry, str(bare), str(BASE)))
    with pytest.raises(AdapterError, match="does not say which model"):
        list(evaluate(registry, str(bare), data=pairs))
    with pytest.raises(UsageError, match="--samples"):
        list(evaluate(registry, str(bare), str(BASE), pairs, samples=-1))


def test_it_can_be_stopped(registry: Registry, pairs: Path) -> None:
    cancel = threading.Event()
    with pytest.raises(CancelledError, match="before the comparison was done"):
        for event in evaluate(registry, str(PLAIN), str(BASE), pairs, cancel=cancel):
            if isinstance(event, EvaluateProgress) and event.done == 3:
                cancel.set()
