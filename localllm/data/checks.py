"""What can be wrong with rows that can be read: each check is a function of rows alone that returns findings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from localllm.data.dataset import at
from localllm.data.near import near_duplicates
from localllm.types import Conversation

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Finding:
    """Something to know about rows before they are trained on."""

    kind: str
    """empty, repeated, near-repeated, contradiction, mixed, overlap, near-overlap; the tasks add their own."""
    lines: tuple[int, ...]
    """Of the rows that it is about, in order; for an overlap those of the validation rows."""
    message: str
    """One sentence with the count and the first lines."""


def check_rows(rows: Sequence[Conversation], unit: str = "line") -> list[Finding]:
    """What one set of rows shows: mixed formats, empty turns, repeated rows, one question with several answers."""
    checks = (_mixed(rows, unit), _empty(rows, unit), _repeated(rows, unit), _contradictions(rows, unit))
    return [finding for check in checks for finding in check]


def check_overlap(
    train: Sequence[Conversation], valid: Sequence[Conversation], unit: str = "line", what: str = "validation"
) -> list[Finding]:
    """Validation (or test) rows that are also trained on, exactly or nearly: they would flatter the adapter."""
    known = {normalized(row) for row in train}
    keys = [normalized(row) for row in valid]
    exact = _lines(row for row, key in zip(valid, keys, strict=True) if key in known)
    texts = list(known)
    others = [(row, key) for row, key in zip(valid, keys, strict=True) if key not in known]
    pairs = near_duplicates([*texts, *(key for _, key in others)])
    near = _lines(others[a - len(texts)][0] for a, b in pairs if a >= len(texts) > b)
    findings = []
    for kind, lines, how in (("overlap", exact, "the same as"), ("near-overlap", near, "nearly the same as")):
        if lines:
            where = f"({at(unit, lines)} of the {what} rows)"
            findings.append(Finding(kind, lines, f"{_count(lines, f'{what} row')} {how} a training row {where}."))
    return findings


def normalized(row: Conversation) -> str:
    """What a row says, without regard to letter case and spaces."""
    parts = [row.text or "", *(f"{m.role}: {m.content} {m.extra}" for m in row.messages)]
    return _SPACE.sub(" ", "\n".join(parts)).strip().casefold()


def _mixed(rows: Sequence[Conversation], unit: str) -> Iterator[Finding]:
    counted = Counter(row.format for row in rows).most_common()
    if len(counted) > 1:
        usual = counted[0][0]
        differing = _lines(row for row in rows if row.format != usual)
        others = ", ".join(f"{count} {name}" for name, count in counted[1:])
        message = f"Most rows are {usual}, but there are also {others} ({at(unit, differing)})."
        yield Finding("mixed", differing, message)


def _empty(rows: Sequence[Conversation], unit: str) -> Iterator[Finding]:
    """Rows of which no answer has text are bad rows, found when they are read."""
    for role, what in (("assistant", "an empty answer, which is learned as one"), ("user", "an empty prompt")):
        empty = _lines(
            row
            for row in rows
            if any(m.role == role and not m.content.strip() and "tool_calls" not in m.extra for m in row.messages)
        )
        if empty:
            verb = "has" if len(empty) == 1 else "have"
            yield Finding("empty", empty, f"{_rows(len(empty))} {verb} {what} ({at(unit, empty)}).")


def _repeated(rows: Sequence[Conversation], unit: str) -> Iterator[Finding]:
    first: dict[str, Conversation] = {}
    again = [row for row in rows if first.setdefault(normalized(row), row) is not row]
    if again:
        lines = _lines(again)
        examples = [f"{row.line} repeats {first[normalized(row)].line}" for row in again[:3]]
        message = f"{_count(lines, 'row', len(again))} the same as an earlier one ({unit} {', '.join(examples)}"
        yield Finding("repeated", lines, f"{message}{', …' if len(again) > 3 else ''}).")
    texts, kept = list(first), list(first.values())
    pairs = near_duplicates(texts)
    if pairs:
        lines = _lines(kept[a] for a, _ in pairs)
        examples = [f"{kept[a].line} is like {kept[b].line}" for a, b in pairs[:3]]
        message = f"{_count(lines, 'row', len(pairs))} nearly the same as an earlier one ({unit} {', '.join(examples)}"
        yield Finding("near-repeated", lines, f"{message}{', …' if len(pairs) > 3 else ''}).")


def _contradictions(rows: Sequence[Conversation], unit: str) -> Iterator[Finding]:
    """One prompt, several answers: none of them can be learned."""
    answers: dict[str, set[str]] = {}
    asked = [(row, *_last_pair(row)) for row in rows if row.text is None]
    for _, prompt, answer in asked:
        answers.setdefault(prompt, set()).add(answer)
    lines = _lines(row for row, prompt, _ in asked if len(answers[prompt]) > 1)
    if lines:
        message = f"{_rows(len(lines))} ask what another asks, with another answer ({at(unit, lines)})."
        yield Finding("contradiction", lines, message)


def _last_pair(row: Conversation) -> tuple[str, str]:
    last = max(i for i, m in enumerate(row.messages) if m.role == "assistant")
    before = Conversation(row.messages[:last], None, row.line, row.tools)
    return normalized(before), normalized(Conversation(row.messages[last : last + 1], None, row.line))


def _lines(rows: Iterator[Conversation] | Sequence[Conversation]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(row.line for row in rows))


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _count(lines: tuple[int, ...], what: str, count: int | None = None) -> str:
    n = len(lines) if count is None else count
    return f"1 {what} is" if n == 1 else f"{n} {what}s are"
