"""Rows over the limit of tokens: refused, left out, or split; never cut off in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from localllm.data.dataset import at
from localllm.data.examples import Encoder
from localllm.errors import DataError
from localllm.types import Conversation, Example, Message

TooLong = Literal["error", "skip", "split"]
DEFAULT_MAX_LENGTH = 2048
"""Tokens of the longest row where nobody says, and the model's context is no smaller."""
Turns = tuple[Message, ...]


@dataclass(frozen=True)
class Fitted:
    """Examples within the limit, and what became of the longer rows."""

    examples: list[Example]
    skipped: tuple[int, ...]
    """Lines of rows of which something was left out."""
    divided: tuple[int, ...]
    """Lines of rows that were split, nothing of them being left out."""
    unlearned: tuple[int, ...] = ()
    """Lines of rows that were left out because no token of them would be learned, as of a text of one token."""


def fit(encoder: Encoder, rows: Sequence[Conversation], limit: int, too_long: TooLong, path: Path) -> Fitted:
    """Encode rows to examples of at most `limit` tokens.

    "error" raises DataError with the lines; "skip" leaves longer ones out; "split" divides texts into windows and
    conversations between questions, and leaves out only what cannot be divided. Raises DataError when nothing is left,
    and with the line where a row cannot be encoded.
    """
    kept: list[Example] = []
    skipped: list[int] = []
    divided: list[int] = []
    longest: list[int] = []
    unlearned: list[int] = []
    for row in rows:
        examples = [example for example in encoder.encode(row) if any(example.mask)]
        size = max((len(example.tokens) for example in examples), default=0)
        if not examples:
            unlearned.append(row.line)
        elif size > limit:
            longest.append(size)
            parts, whole = divide(encoder, row, limit) if too_long == "split" else ([], False)
            (divided if whole else skipped).append(row.line)
            kept += parts
        else:
            kept += examples
    if longest and too_long == "error":
        raise _too_long(len(rows), skipped, max(longest), limit, path)
    if not kept:
        raise _nothing_left(limit, longest, path)
    return Fitted(kept, tuple(skipped), tuple(divided), tuple(unlearned))


def divide(encoder: Encoder, row: Conversation, limit: int) -> tuple[list[Example], bool]:
    """Parts of a long row within the limit, and whether they hold all that there is to learn in it."""
    if row.text is not None:
        (example,) = encoder.encode(row)
        opening = len(encoder.tokenizer.tokenize("", parse_special=False))
        return (windows(example, opening, limit), True) if limit >= opening + 2 else ([], False)
    return _between_questions(encoder, row, limit)


def windows(example: Example, opening: int, limit: int) -> list[Example]:
    """A long text as windows of at most `limit` tokens in which every token is learned once.

    Each begins with the text's own `opening` tokens (BOS, where the model has one) and the last token of the window
    before it, which are only read. Raises ValueError for a limit that leaves no room.
    """
    tokens, mask = example.tokens, example.mask
    if limit < opening + 2:
        raise ValueError(f"{limit} tokens hold no window")
    parts = [Example(tokens[:limit], mask[:limit], example.line)]
    at = limit
    while at < len(tokens):
        head = (*tokens[:opening], tokens[at - 1])
        end = min(len(tokens), at + limit - len(head))
        unlearned = (False,) * len(head)
        parts.append(Example((*head, *tokens[at:end]), (*unlearned, *mask[at:end]), example.line))
        at = end
    return parts


def _between_questions(encoder: Encoder, row: Conversation, limit: int) -> tuple[list[Example], bool]:
    """As many exchanges in each part as fit, in order, every part with the system message and the tools.

    Answers in a later part are learned without the exchanges before it; what does not fit alone is left out.
    """
    system, exchanges = _exchanges(row)
    if encoder.train_on == "last":
        latest = (_encoded(encoder, row, system, exchanges[i:], limit) for i in range(len(exchanges)))
        examples = next(filter(None, latest), [])
        return examples, bool(examples)
    parts: list[list[Example]] = []
    held: list[Turns] = []
    whole = True
    for exchange in exchanges:
        joined = _encoded(encoder, row, system, [*held, exchange], limit) if held else []
        if joined:
            parts[-1] = joined
            held.append(exchange)
            continue
        alone = _encoded(encoder, row, system, [exchange], limit)
        held = [exchange] if alone else []
        whole = whole and bool(alone)
        parts += [alone] if alone else []
    return [example for part in parts for example in part], whole


def _exchanges(row: Conversation) -> tuple[Turns, list[Turns]]:
    """(what comes before the first question, each question with what follows it up to the next)."""
    turns = row.messages
    starts = [i for i, m in enumerate(turns) if m.role == "user" and (i == 0 or turns[i - 1].role != "user")]
    parts = [turns[a:b] for a, b in zip(starts, [*starts[1:], len(turns)], strict=True)]
    return turns[: starts[0]], [part for part in parts if any(m.role == "assistant" for m in part)]


def _encoded(encoder: Encoder, row: Conversation, system: Turns, parts: list[Turns], limit: int) -> list[Example]:
    """The examples of some exchanges, or none where one is longer than the limit."""
    examples = encoder.encode(replace(row, messages=(*system, *(m for part in parts for m in part))))
    return examples if all(len(example.tokens) <= limit for example in examples) else []


def _nothing_left(limit: int, longest: Sequence[int], path: Path) -> DataError:
    if not longest:
        return DataError("no token of any row would be learned.", "See `localllm data show`.", path=path)
    return DataError(f"every row is longer than {limit} tokens.", "Raise --max-length.", path=path)


def _too_long(rows: int, lines: Sequence[int], longest: int, limit: int, path: Path) -> DataError:
    where = f"{at('line', lines)}; the longest has {longest}"
    return DataError(
        f"{len(lines)} of {rows} rows are longer than {limit} tokens ({where}).",
        f"Use --max-length {longest} to train on them whole, --too-long split to divide them, or --too-long skip to "
        "leave them out.",
        path=path,
    )
