"""Check a dataset before any model is loaded: what it is, what is wrong with it, how long its rows are.

Only the vocabulary and the chat template of the model are read, so that lengths are those of its own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localllm.data.checks import Finding, check_overlap, check_rows
from localllm.data.dataset import BadRow, Dataset, at, has_valid, scan_dataset
from localllm.data.examples import Encoder, TrainOn
from localllm.data.fitting import DEFAULT_MAX_LENGTH
from localllm.data.lengths import Lengths, measure
from localllm.engine.llama import LlamaEngine
from localllm.errors import DataError, TemplateError, UsageError
from localllm.store.registry import Registry
from localllm.types import Conversation, Example
from localllm.weights.gguf import read_header

_MARKS = "<[{|"
"""What the written form of a control token begins with, in every vocabulary there is."""


@dataclass(frozen=True)
class CheckRequest:
    """What to check, and for which model."""

    data: Path
    model: str
    valid: Path | None = None
    """Rows to validate on; without it those that a dataset's folder brings, if any."""
    max_length: int | None = None
    """Tokens of the longest row; default: the model's context, up to 2048."""
    train_on: TrainOn = "assistant"


@dataclass(frozen=True)
class DataReport:
    """Everything that was found."""

    path: str
    kind: str
    """Of file."""
    format: str
    """Of most rows; nothing when none could be read."""
    formats: dict[str, int]
    unit: str
    """What the line numbers count: "line", or "row" where there are none."""
    rows: int
    """That can be used."""
    unusable: tuple[Finding, ...]
    """Rows that cannot, by what is wrong with them."""
    findings: tuple[Finding, ...]
    """Things to look at; none of them stops training but "too-long", which needs --too-long."""
    model: str
    limit: int
    """Tokens of the longest row that is trained on."""
    lengths: Lengths | None
    """None when there is no row to measure."""
    valid_path: str | None
    valid_rows: int

    @property
    def verdict(self) -> str:
        """In one sentence."""
        bad = sum(len(finding.lines) for finding in self.unusable)
        if bad:
            return f"NOT usable: {bad} {self.unit}{'s' * (bad > 1)} cannot be read or learned from."
        if self.findings:
            return f"Usable, with {len(self.findings)} thing{'s' * (len(self.findings) > 1)} to look at."
        return "Usable: nothing was found wrong with it."


def check_data(registry: Registry, request: CheckRequest) -> DataReport:
    """Read, check and measure. Raises DataError for a file that cannot be read at all, ModelError, UsageError."""
    if request.max_length is not None and request.max_length < 1:
        raise UsageError(f"--max-length must be more than 0, not {request.max_length}.")
    data = scan_dataset(request.data)
    valid = _valid(request)
    model = registry.model(request.model)
    limit = request.max_length or _context(model.path)
    engine = LlamaEngine.open(model.path, vocab_only=True)
    try:
        vocab = engine.vocab
        encoder = Encoder(engine, engine.info.has_template, vocab.eos, vocab.is_end, request.train_on)
        examples, refused = _encode(encoder, data.rows)
        control = _control(encoder, data)
        valid_refused = _encode(encoder, valid.rows)[1] if valid else []
    finally:
        engine.close()
    findings = [*_findings(data, valid), *control, *_too_long(examples, limit, data.unit)]
    unusable = _grouped([*data.bad, *refused])
    if valid:
        unusable += _grouped([*valid.bad, *valid_refused], f"of {valid.path}: ")
    return DataReport(
        path=str(request.data),
        kind=data.kind,
        format=data.formats[0][0] if data.formats else "",
        formats=dict(data.formats),
        unit=data.unit,
        rows=len(data.rows) - len(refused),
        unusable=tuple(unusable),
        findings=(*findings, *_unlearned(examples, data.unit)),
        model=model.name,
        limit=limit,
        lengths=measure(examples) if examples else None,
        valid_path=str(valid.path) if valid else None,
        valid_rows=len(valid.rows) if valid else 0,
    )


def _context(model: Path) -> int:
    """The limit that fine-tuning takes by itself; a vocabulary alone does not know the model's context."""
    metadata = read_header(model).metadata
    context = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    return min(context, DEFAULT_MAX_LENGTH) if isinstance(context, int) and context > 0 else DEFAULT_MAX_LENGTH


def _valid(request: CheckRequest) -> Dataset | None:
    if request.valid is None and not has_valid(request.data):
        return None
    return scan_dataset(request.valid or request.data, "valid")


def _encode(encoder: Encoder, rows: Sequence[Conversation]) -> tuple[list[Example], list[BadRow]]:
    """Examples, and the rows that this model or its template refuses."""
    examples: list[Example] = []
    refused = []
    for row in rows:
        try:
            examples += encoder.encode(row)
        except (DataError, TemplateError) as error:
            refused.append(BadRow(row.line, error.message.removeprefix(f"line {row.line}: ")))
    return examples, refused


def _findings(data: Dataset, valid: Dataset | None) -> list[Finding]:
    findings = check_rows(data.rows, data.unit)
    return findings + (check_overlap(data.rows, valid.rows, valid.unit) if valid else [])


def _control(encoder: Encoder, data: Dataset) -> list[Finding]:
    """Rows that write out what the model has control tokens for: a template applied too early, or copied text."""
    found: dict[bool, list[int]] = {True: [], False: []}
    for row in data.rows:
        texts = [row.text] if row.text is not None else [m.content for m in row.messages]
        if any(_has_control(encoder, text) for text in texts):
            found[row.text is not None].append(row.line)
    means = {
        True: "with control tokens written out, which a text row holds as plain letters: give such rows as messages",
        False: "with control tokens written out inside a message, where the model takes them for the template's own",
    }
    counted = {is_text: f"{len(lines)} row{'s' * (len(lines) > 1)}" for is_text, lines in found.items()}
    return [
        Finding("control", tuple(lines), f"{counted[is_text]} {means[is_text]} ({at(data.unit, lines)}).")
        for is_text, lines in found.items()
        if lines
    ]


def _has_control(encoder: Encoder, text: str) -> bool:
    if not any(mark in text for mark in _MARKS):
        return False
    tokenize = encoder.tokenizer.tokenize
    return tokenize(text, parse_special=True) != tokenize(text, parse_special=False)


def _too_long(examples: Sequence[Example], limit: int, unit: str) -> list[Finding]:
    long = [example for example in examples if len(example.tokens) > limit]
    if not long:
        return []
    lines = tuple(dict.fromkeys(example.line for example in long))
    most = max(len(example.tokens) for example in long)
    count = f"{len(lines)} row{'s are' if len(lines) > 1 else ' is'} longer than {limit} tokens"
    where = f"{at(unit, lines)}; the longest has {most}"
    advice = f"give finetune --max-length {most}, --too-long split, or --too-long skip"
    return [Finding("too-long", lines, f"{count} ({where}): {advice}.")]


def _unlearned(examples: Sequence[Example], unit: str) -> list[Finding]:
    lines = tuple(dict.fromkeys(example.line for example in examples if not any(example.mask)))
    count = f"{len(lines)} row{'s have' if len(lines) > 1 else ' has'} no token to learn"
    return [Finding("unlearned", lines, f"{count} ({at(unit, lines)}).")] if lines else []


def _grouped(bad: Sequence[BadRow], where: str = "") -> list[Finding]:
    """One finding for each kind of problem, in the order of their first lines."""
    groups: dict[str, list[int]] = {}
    for row in sorted(bad, key=lambda row: row.line):
        groups.setdefault(row.problem, []).append(row.line)
    return [Finding("unusable", tuple(lines), where + problem) for problem, lines in groups.items()]
