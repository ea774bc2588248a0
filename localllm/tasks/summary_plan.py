"""How one document becomes one summary: the questions to the model, those that can be asked side by side together.

A plan is a generator. It yields steps as an iterator, to be taken as the engine has room, and is sent their answers in
the same order; its value is the `Summary`. It knows nothing of engines, so the same answers always make the same one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from localllm.data.chunking import split_text, unwrap
from localllm.errors import EngineError
from localllm.tasks.summary_prompts import Prompts
from localllm.types import Chunk, FinishReason, Sampling

Strategy = Literal["auto", "single", "map-reduce", "refine"]
STRATEGIES: tuple[Strategy, ...] = ("auto", "single", "map-reduce", "refine")
_THOUGHTS = re.compile(r"\s*<think>.*?(</think>|\Z)", re.S)


@dataclass(frozen=True)
class Step:
    """One question to the model."""

    prompt: str
    sampling: Sampling
    level: int
    """0 for the text itself, then the rounds in which summaries are combined."""
    chunk: Chunk | None = None
    """The part of the text that is read; None where summaries are."""


@dataclass(frozen=True)
class Answer:
    """What the model wrote for a step, and what it took."""

    text: str
    reason: FinishReason
    prompt_tokens: int
    output_tokens: int
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class Limits:
    """What fits a prompt of this model: the same for all documents."""

    text: int
    """Tokens of text, or of summaries, in one prompt."""
    refine: int
    """The same beside a summary of what came before."""
    overlap: int
    part: Sampling
    final: Sampling


@dataclass(frozen=True)
class Summary:
    """The end of a plan."""

    value: Any
    """Text; what the JSON holds where there is a schema."""
    strategy: Strategy
    levels: int
    """Rounds of combining."""
    parts: tuple[dict[str, Any], ...]
    finish_reason: FinishReason
    warnings: tuple[str, ...] = ()


Plan = Generator[Iterator[Step], list[Answer], Summary]


class Planner:
    """Makes plans with the same settings for one document after the other."""

    def __init__(self, prompts: Prompts, strategy: Strategy, limits: Limits, count: Callable[[str], int]) -> None:
        self._prompts, self._strategy, self._limits, self._count = prompts, strategy, limits, count

    def plan(self, text: str) -> Plan:
        """The steps for one text. Raises EngineError where the model gives nothing that can be used."""
        refine = self._strategy == "refine"
        budget = self._limits.refine if refine else self._limits.text
        chunks = split_text(text, budget, self._count, min(self._limits.overlap, budget // 2))
        ahead, written = [], 0
        for chunk in chunks:
            ahead.append(chunk)
            written += bool(chunk.text.strip())
            if written == 2:
                break
        if written < 2:
            return (yield from self._single(ahead))
        if self._strategy == "single":
            needed = self._count(text)
            raise EngineError(
                f"The text has {needed} tokens, and one prompt has room for {self._limits.text}.",
                "Raise --ctx, or leave out --strategy single.",
            )
        rest = chain(ahead, chunks)
        return (yield from (self._refine(rest) if refine else self._map_reduce(rest)))

    def _single(self, chunks: list[Chunk]) -> Plan:
        prompt = self._prompts.text(_readable("".join(chunk.text for chunk in chunks)), final=True)
        whole = Chunk(chunks[0].start, chunks[-1].end, "", sum(chunk.tokens for chunk in chunks))
        (answer,) = yield iter((Step(prompt, self._limits.final, 0, whole),))
        value = self._value(answer)
        return Summary(value, "single", 0, (_part(whole, answer),), answer.reason)

    def _map_reduce(self, chunks: Iterable[Chunk]) -> Plan:
        parts: list[tuple[Chunk, bool]] = []  # and whether anything is written there
        answers = yield self._part_steps(chunks, parts)
        rows = _part_rows(parts, answers)
        texts = [text for row in rows if (text := row["summary"])]
        if not texts:
            raise EngineError("The model wrote nothing for any part.", "Choose a larger model with --model.")
        unwritten = sum(row["finish_reason"] is not None and not row["summary"] for row in rows)
        warnings = (f"the model wrote nothing for {unwritten} of {len(rows)} parts",) if unwritten else ()
        level = 0
        while True:
            level += 1
            groups = self._group(texts)
            final = len(groups) == 1
            answers = yield self._combine_steps(groups, level, final)
            if final:
                return Summary(self._value(answers[0]), "map-reduce", level, rows, answers[0].reason, warnings)
            written = iter(answers)
            texts = [" ".join(_plain(next(written).text).split()) if len(g) > 1 else g[0] for g in groups]
            texts = [text for text in texts if text]
            if not texts:
                raise EngineError("The model wrote nothing for any part.", "Choose a larger model with --model.")

    def _part_steps(self, chunks: Iterable[Chunk], parts: list[tuple[Chunk, bool]]) -> Iterator[Step]:
        for chunk in chunks:
            place, text = replace(chunk, text=""), _readable(chunk.text)
            parts.append((place, bool(text)))
            if text:
                yield Step(self._prompts.text(text, final=False), self._limits.part, 0, place)

    def _combine_steps(self, groups: list[list[str]], level: int, final: bool) -> Iterator[Step]:
        sampling = self._limits.final if final else self._limits.part
        for group in groups:
            if final or len(group) > 1:
                yield Step(self._prompts.combine(group, final=final), sampling, level)

    def _refine(self, chunks: Iterable[Chunk]) -> Plan:
        rows: list[dict[str, Any]] = []
        so_far, answer = "", None
        waiting: list[Chunk] = []  # the next part to read, and blank ones around it
        for chunk in chain(chunks, (None,)):
            if chunk is not None and (not chunk.text.strip() or not any(c.text.strip() for c in waiting)):
                waiting.append(chunk)
                continue
            final = chunk is None
            text = _readable("".join(c.text for c in waiting))
            prompt = (
                self._prompts.refine(so_far, text, final=final) if so_far else self._prompts.text(text, final=final)
            )
            read = Chunk(waiting[0].start, waiting[-1].end, "", sum(c.tokens for c in waiting))
            sampling = self._limits.final if final else self._limits.part
            (answer,) = yield iter((Step(prompt, sampling, 0, read),))
            rows.append(_part(read, answer))
            so_far = " ".join(_plain(answer.text).split()) or so_far
            waiting = [] if chunk is None else [chunk]
        assert answer is not None
        return Summary(self._value(answer), "refine", 0, tuple(rows), answer.reason)

    def _group(self, texts: list[str]) -> list[list[str]]:
        """Consecutive summaries that fit together; two or more in each group but the last, so every round ends."""
        groups: list[list[str]] = [[]]
        used = 0
        for text in texts:
            tokens = self._count(text) + 1
            if len(groups[-1]) >= 2 and used + tokens > self._limits.text:
                groups.append([])
                used = 0
            groups[-1].append(text)
            used += tokens
        return groups

    def _value(self, answer: Answer) -> Any:
        """The summary in the model's last answer. Raises EngineError for an empty one and for JSON that was cut off."""
        if self._prompts.wish.schema is None:
            text = _tidy(answer.text)
            if not text:
                raise EngineError("The model wrote no summary.", "Choose a larger model with --model.")
            return text
        try:
            return json.loads(answer.text, parse_float=_finite, parse_constant=_finite)
        except ValueError:
            cut = answer.reason == "length"
            raise EngineError(
                f"The summary's JSON was cut off after {answer.output_tokens} tokens."
                if cut else "The summary is no JSON that can be read back.",
                "Raise --max-tokens or --ctx." if cut else "Use a simpler schema.",
            ) from None  # fmt: skip


def _part_rows(parts: list[tuple[Chunk, bool]], answers: list[Answer]) -> tuple[dict[str, Any], ...]:
    asked = iter(answers)
    return tuple(_part(place, next(asked) if written else None) for place, written in parts)


def _part(chunk: Chunk, answer: Answer | None) -> dict[str, Any]:
    """A part as the row has it; one without an answer was blank."""
    return {
        "start": chunk.start,
        "end": chunk.end,
        "tokens": chunk.tokens,
        "summary": _tidy(answer.text) if answer else "",
        "finish_reason": answer.reason if answer else None,
        "output_tokens": answer.output_tokens if answer else 0,
    }


def _readable(text: str) -> str:
    return unwrap(text).strip()


def _plain(text: str) -> str:
    """Without what a model thinks aloud before it answers."""
    return _THOUGHTS.sub("", text, count=1) if text.lstrip().startswith("<think>") else text


def _tidy(text: str) -> str:
    """Lines without needless spaces, and no more than one blank line between them."""
    lines = (" ".join(line.split()) for line in _plain(text).strip().splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def _finite(number: str) -> float:
    """Raises ValueError for what JSON cannot hold."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value
