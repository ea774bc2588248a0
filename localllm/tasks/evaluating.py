"""What changed: base against adapter, both through llama.cpp with the GGUF adapter, on one loaded engine.

On the person's rows: loss, perplexity, and the answers by the measure that suits them. On a text that the project ships
and on rows of other topics: perplexity, which shows what was forgotten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localllm.engine.llama import LlamaEngine
from localllm.errors import AdapterError, CancelledError, UsageError
from localllm.evaluate.answers import Measure, choose, scores
from localllm.evaluate.exact import Answered
from localllm.evaluate.perplexity import Change, Loss, row_loss
from localllm.evaluate.verdict import Scored, Verdict, judge
from localllm.store.registry import Registry
from localllm.tasks.answering import answer_all
from localllm.tasks.evaluation_rows import Material, gather, given_rows
from localllm.tasks.heldout import HELD_OUT, read_held_out
from localllm.tasks.opening import adapter_for
from localllm.tasks.verify import Rows
from localllm.types import AdapterRef, Example, ModelRef

SAMPLES = 5
GENERAL, OTHER = "general text", "rows of other topics"


@dataclass(frozen=True)
class EvaluateStarted:
    """What will be compared."""

    adapter: str
    model: str
    kind: str
    """Where the rows come from: "held-out" or "given"."""
    rows: int
    available: int
    """Rows there were; more than `rows` where those would take too long."""
    questions: int
    measure: str
    """What answers are judged by; empty without questions."""
    why: str


@dataclass(frozen=True)
class EvaluateProgress:
    """`done` of `total` rows read or answered, those of the base and those with the adapter together."""

    done: int
    total: int


@dataclass(frozen=True)
class Sample:
    """One question with all its answers; control tokens are left out of the prompt."""

    line: int
    prompt: str
    expected: str
    base: str
    adapter: str


@dataclass(frozen=True)
class Answers:
    """Base and adapter by one measure, and by others of its kind."""

    measure: Measure
    scored: tuple[Scored, ...]
    """The first is the one that the verdict goes by."""


@dataclass(frozen=True)
class EvaluateResult:
    """Everything that was measured."""

    adapter: str
    path: Path
    """Of the GGUF adapter."""
    model: str
    kind: str
    rows: Change
    answers: Answers | None
    """None where no row has a question."""
    general: Change
    other: Change
    samples: tuple[Sample, ...]
    verdict: Verdict
    tokens: int
    """Read and written, by both."""
    seconds: float

    def record(self) -> dict[str, Any]:
        """For JSON: the numbers and the verdict, without the samples."""
        answers = self.answers
        return {
            "adapter": self.adapter, "model": self.model, "rows_kind": self.kind, "verdict": self.verdict.record(),
            "rows": self.rows.record(),
            "answers": None if answers is None else {
                "measure": answers.measure.name, "why": answers.measure.why, "rows": len(answers.scored[0].base),
                "base": {s.name: s.before for s in answers.scored},
                "adapter": {s.name: s.after for s in answers.scored},
            },
            "general": self.general.record(), "other": self.other.record(),
        }  # fmt: skip


EvaluateEvent = EvaluateStarted | EvaluateProgress | EvaluateResult


def evaluate(
    registry: Registry,
    adapter: str,
    model: str | None = None,
    data: Path | None = None,
    samples: int = SAMPLES,
    cancel: threading.Event | None = None,
) -> Iterator[EvaluateEvent]:
    """Compare an adapter with its base (default: the one that it names), on its held-out rows or on those of `data`.

    The last event is the EvaluateResult. Raises AdapterNotFoundError, AdapterMismatchError, AdapterError, ModelError,
    DataError, UsageError and CancelledError.
    """
    if samples < 0:
        raise UsageError(f"--samples must be 0 or more, not {samples}.")
    found = registry.adapter(adapter)
    base = registry.model(model or _base_of(registry, found))
    found = adapter_for(registry, adapter, base)
    rows = given_rows(base.path, data) if data else _held_out(found)
    yield from evaluate_rows(found, base, rows, samples, cancel)


def evaluate_rows(
    adapter: AdapterRef, base: ModelRef, rows: Rows, samples: int = SAMPLES, cancel: threading.Event | None = None
) -> Iterator[EvaluateEvent]:
    """The same for a GGUF adapter wherever it lies, on rows that are tokens already."""
    begin = time.perf_counter()
    material = gather(base.path, rows)
    measure = choose([q.expected for q in material.questions]) if material.questions else None
    named = (measure.name, measure.why) if measure else ("", "")
    asked = len(material.questions)
    yield EvaluateStarted(adapter.name, base.name, rows.kind, len(material.rows), material.available, asked, *named)
    engine = LlamaEngine.open(base.path, n_ctx=material.n_ctx, n_slots=None)
    try:
        total = 2 * material.passes
        before = yield from _counted(_measured(engine, material, cancel), 0, total)
        engine.set_adapters([(adapter.path, adapter.scale)])
        after = yield from _counted(_measured(engine, material, cancel), material.passes, total)
        prompts = [engine.detokenize(q.prompt).strip() for q in material.questions]
    finally:
        engine.close()
    changes = [Change(b, a) for b, a in zip(before.losses, after.losses, strict=True)]
    answers = _answers(measure, before.answered, after.answered) if measure else None
    kept_as_it_was = {GENERAL: changes[1], OTHER: changes[2]}
    verdict = judge(changes[0], answers.scored[0] if answers else None, kept_as_it_was, engine.vocab.size)
    shown = _samples(prompts, before.answered, after.answered, answers, samples)
    yield EvaluateResult(
        adapter.name, adapter.path, base.name, rows.kind, changes[0], answers, changes[1], changes[2], shown,
        verdict, before.tokens + after.tokens, time.perf_counter() - begin,
    )  # fmt: skip


@dataclass(frozen=True)
class _Measured:
    """What one of the two models did."""

    losses: list[Loss]
    """On the rows, the general text and the rows of other topics."""
    answered: list[Answered]
    tokens: int


def _measured(
    engine: LlamaEngine, material: Material, cancel: threading.Event | None
) -> Generator[None, None, _Measured]:
    """Read every row and answer every question as the engine stands; yields after each."""
    losses = []
    for group in (material.rows, material.general, material.other):
        done = []
        for row in group:
            _check(cancel)
            done.append(row_loss(engine, row))
            yield
        losses.append(Loss(tuple(done)))
    texts, tokens = {}, _tokens(material)
    prompts = [question.prompt for question in material.questions]
    _check(cancel)
    for number, text, written in answer_all(engine, prompts, material.max_tokens, cancel):
        texts[number] = text
        tokens += len(prompts[number]) + written
        yield
    _check(cancel)
    answered = [Answered(q.line, q.expected, texts[i]) for i, q in enumerate(material.questions)]
    return _Measured(losses, answered, tokens)


def _tokens(material: Material) -> int:
    groups: Sequence[Sequence[Example]] = (material.rows, material.general, material.other)
    return sum(len(row.tokens) for group in groups for row in group)


def _check(cancel: threading.Event | None) -> None:
    if cancel is not None and cancel.is_set():
        raise CancelledError("Stopped before the comparison was done.")


def _answers(measure: Measure, base: Sequence[Answered], adapter: Sequence[Answered]) -> Answers:
    before, after = scores(measure, base), scores(measure, adapter)
    return Answers(measure, tuple(Scored(name, tuple(before[name]), tuple(after[name])) for name in before))


def _samples(
    prompts: Sequence[str], base: Sequence[Answered], adapter: Sequence[Answered], answers: Answers | None, most: int
) -> tuple[Sample, ...]:
    """So many questions, in their order: up to half are those that the adapter did worst on, the others the first."""
    values = answers.scored[0].adapter if answers else ()
    worst = [i for i in sorted(range(len(values)), key=values.__getitem__) if values[i] < 1]
    picked = list(dict.fromkeys([*worst[: most // 2], *range(len(values))]))[:most]
    return tuple(
        Sample(base[i].line, prompts[i], base[i].expected, base[i].answer, adapter[i].answer) for i in sorted(picked)
    )


def _counted(
    work: Generator[None, None, _Measured], done: int, total: int
) -> Generator[EvaluateProgress, None, _Measured]:
    """The work's own result, its yields made into progress."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _Measured = end.value
            return result
        done += 1
        yield EvaluateProgress(done, total)


def _held_out(adapter: AdapterRef) -> Rows:
    path = adapter.path.parent / HELD_OUT
    if not path.is_file():
        raise UsageError(f"No rows were held out when {adapter.name} was made.", "Give some, by --data FILE.")
    return Rows("held-out", read_held_out(path))


def _base_of(registry: Registry, adapter: AdapterRef) -> str:
    """The base that an adapter names in its manifest: by path where that still holds, else by name."""
    base = registry.manifest(adapter).get("base", {})
    if not base.get("name"):
        raise AdapterError(f"{adapter.name} does not say which model it was made for.", "Name it with --model.")
    path = str(base.get("path", ""))
    return path if path and Path(path).is_file() else str(base["name"])
