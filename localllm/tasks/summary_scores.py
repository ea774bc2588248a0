"""Summaries of a run against references: which belongs to which, and how good each is.

A row of references names its document (`id`, `paper_id` or `custom_id`, or the path in `source`) and has what a person
wrote (`summary`, `target` or `reference`, one text or several). Its text (`text`, `document`, or a list of sentences in
`source`) is used where it is there. Meetings as QMSum has them are understood too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from localllm import jsonl
from localllm.errors import DataError
from localllm.evaluate.rouge import words
from localllm.evaluate.summaries import Mean, Score, mean, score

_IDS = ("id", "custom_id", "paper_id")
_REFERENCES = ("summary", "target", "reference", "references")
_TEXTS = ("text", "document", "article")


@dataclass(frozen=True)
class Reference:
    """A row of references."""

    line: int
    names: tuple[str, ...]
    """What its document is called; none where the row does not say."""
    summaries: tuple[str, ...]
    source: str | None


@dataclass(frozen=True)
class Scored:
    """One summary and what it got."""

    document: str
    score: Score


@dataclass(frozen=True)
class SummaryScores:
    """All summaries of a run."""

    scored: tuple[Scored, ...]
    mean: Mean
    failed: int
    """Rows with an error instead of a summary."""
    unmatched: int
    """Summaries without a reference."""
    unanswered: int
    """References without a summary."""


def score_summaries(results: Path, references: Path) -> SummaryScores:
    """Judge every summary that has a reference. Raises DataError, also where none has."""
    known = list(_references(references))
    by_name = {name: reference for reference in known for name in reference.names}
    by_line = {str(reference.line): reference for reference in known if not reference.names}
    scored: list[Scored] = []
    failed = unmatched = 0
    used = set()
    for number, row in jsonl.read(results):
        names, summary = _result(row, results, number)
        found = next((by_name[name] for name in names if name in by_name), None)
        if found is None and names:
            found = by_line.get(names[0].rpartition(":")[2])
        if summary is None:
            failed += 1
        elif found is None:
            unmatched += 1
        else:
            used.add(found.line)
            scored.append(Scored(names[0], score(summary, found.summaries, found.source)))
    if not scored:
        raise DataError(
            "no summary in it has a reference.", f"Give {references} the ids or paths of its documents.", path=results
        )
    return SummaryScores(tuple(scored), mean([s.score for s in scored]), failed, unmatched, len(known) - len(used))


def _references(path: Path) -> Iterator[Reference]:
    empty = True
    for number, row in jsonl.read(path):
        if not isinstance(row, dict):
            raise DataError("is not an object.", "A row is {id, summary}.", path=path, line=number)
        summaries = tuple(text for text in _summaries(row) if words(text))
        if not summaries:
            hint = f"Name it {', '.join(_REFERENCES)}."
            raise DataError("holds no summary to compare with.", hint, path=path, line=number)
        names = tuple(str(row[key]) for key in _IDS if isinstance(row.get(key), str | int))
        if isinstance(row.get("source"), str):
            names += _paths(row["source"])
        empty = False
        yield Reference(number, names, summaries, _source(row))
    if empty:
        raise DataError("holds no references.", "Write one {id, summary} a line.", path=path)


def _summaries(row: dict[str, Any]) -> list[str]:
    value = next((row[key] for key in _REFERENCES if row.get(key)), None)
    if value is None and isinstance(row.get("general_query_list"), list):
        # Of QMSum's queries on the whole meeting the first asks for a summary.
        value = [query.get("answer") for query in row["general_query_list"][:1] if isinstance(query, dict)]
    texts = value if isinstance(value, list) else [value]
    return [text for text in texts if isinstance(text, str)]


def _source(row: dict[str, Any]) -> str | None:
    text = next((row[key] for key in _TEXTS if isinstance(row.get(key), str)), None)
    if text is None and isinstance(row.get("source"), list):
        return " ".join(sentence for sentence in row["source"] if isinstance(sentence, str))
    turns = row.get("meeting_transcripts")
    if text is None and isinstance(turns, list):
        return "\n".join(f"{turn['speaker']}: {turn['content']}" for turn in turns)
    return text


def _result(row: Any, path: Path, line: int) -> tuple[tuple[str, ...], str | None]:
    """(what the document is called, the likeliest first, its summary); None for the summary of a row with an error.

    Rows are those of `localllm summarize` or of `localllm batch`.
    """
    if not isinstance(row, dict):
        raise DataError("is not an object.", "A row is {source, summary}.", path=path, line=line)
    source = row.get("source") if isinstance(row.get("source"), str) else None
    custom = row.get("custom_id")
    if isinstance(custom, str):
        names = _paths(custom)
    else:
        named = (str(row["id"]),) if isinstance(row.get("id"), str | int) else ()
        names = (*named, *_paths(source)) if source is not None else named
    if not names:
        raise DataError("does not say which document it is of.", "A row has an id or a source.", path=path, line=line)
    text = _answer(row) if "response" in row else row.get("summary")
    if row.get("error") or not isinstance(text, str):
        return names, None
    return names, text


def _answer(row: dict[str, Any]) -> Any:
    try:
        return row["response"]["body"]["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None


def _paths(source: str) -> tuple[str, ...]:
    """A path, its last part, and that without its ending."""
    path = PurePath(source)
    return source, path.name, path.stem
